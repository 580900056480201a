#include "tools/weft/inject/inject.h"

#include <algorithm>
#include <stdexcept>

#include "sidecar/base/yaml.h"

namespace weft::inject {
namespace {

constexpr int kSidecarUid = 1337;
constexpr const char* kIntercept = "weft-intercept";
constexpr const char* kSidecar = "weft-sidecar";
constexpr const char* kTokenVolume = "weft-token";
constexpr const char* kRunVolume = "weft-run";

// ---- YAML out. yaml-cpp's own emitter drops the quotes of "8080", which changes its type.

std::string Quote(const std::string& s) {
  std::string out = "\"";
  char buf[8];
  for (unsigned char c : s) {
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\t': out += "\\t"; break;
      case '\r': out += "\\r"; break;
      default:
        if (c < 0x20 || c == 0x7f) {
          snprintf(buf, sizeof buf, "\\x%02x", c);
          out += buf;
        } else {
          out += static_cast<char>(c);
        }
    }
  }
  return out + "\"";
}

std::string Scalar(const YAML::Node& n) {
  if (n.IsNull()) return "null";
  // "!" marks a scalar that was quoted (or a block scalar); a plain one is given back as it was written.
  return n.Tag() == "!" ? Quote(n.Scalar()) : n.Scalar();
}

void Emit(const YAML::Node& n, int indent, std::string& out) {
  const std::string pad(indent, ' ');
  if (n.IsMap()) {
    for (const auto& item : n) {
      out += pad + Scalar(item.first) + ":";
      const YAML::Node& v = item.second;
      if ((v.IsMap() || v.IsSequence()) && v.size() > 0) {
        out += "\n";
        Emit(v, v.IsSequence() ? indent : indent + 2, out);
      } else {
        out += v.IsMap() ? " {}\n" : v.IsSequence() ? " []\n" : " " + Scalar(v) + "\n";
      }
    }
  } else if (n.IsSequence()) {
    for (const YAML::Node& v : n) {
      if ((v.IsMap() || v.IsSequence()) && v.size() > 0) {
        std::string inner;
        Emit(v, indent + 2, inner);
        out += pad + "- " + inner.substr(indent + 2);
      } else {
        out += pad + "- " + (v.IsMap() ? "{}" : v.IsSequence() ? "[]" : Scalar(v)) + "\n";
      }
    }
  } else {
    out += pad + Scalar(n) + "\n";
  }
}

YAML::Node Quoted(const std::string& s) {
  YAML::Node n(s);
  n.SetTag("!");
  return n;
}

YAML::Node Strings(const std::vector<std::string>& items) {
  YAML::Node n(YAML::NodeType::Sequence);
  for (const auto& i : items) n.push_back(Quoted(i));
  return n;
}

// ---- Reading

std::string Str(const YAML::Node& map, const char* key) {
  if (!map.IsMap() || !map[key] || !map[key].IsScalar()) return "";
  return map[key].Scalar();
}

// The pod template's {metadata, spec} holder; undefined for kinds that have none.
YAML::Node PodOf(YAML::Node doc) {
  const std::string kind = Str(doc, "kind");
  if (kind == "Pod") return doc;
  if (kind == "CronJob") return doc["spec"]["jobTemplate"]["spec"]["template"];
  for (const char* k : {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"}) {
    if (kind == k) return doc["spec"]["template"];
  }
  return YAML::Node(YAML::NodeType::Undefined);
}

std::string ProtocolOf(const YAML::Node& port) {
  std::string word = Str(port, "appProtocol");
  if (word.empty()) word = Str(port, "name");
  word = word.substr(0, word.find('-'));
  if (word == "grpc" || word == "http2" || word == "http") return word;
  if (word == "h2c" || word == "kubernetes.io/h2c") return "http2";
  return word == "web" || word.empty() ? "http" : "tcp";
}

std::vector<std::string> Split(const std::string& text) {
  std::vector<std::string> out;
  for (size_t at = 0; at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    std::string item = text.substr(at, comma - at);
    item.erase(0, item.find_first_not_of(" "));
    while (!item.empty() && item.back() == ' ') item.pop_back();
    if (!item.empty()) out.push_back(item);
    at = comma + 1;
  }
  return out;
}

std::vector<std::string> Ports(const YAML::Node& spec, const std::string& annotation) {
  if (!annotation.empty()) return Split(annotation);
  std::vector<std::string> out;
  for (const YAML::Node& c : spec["containers"]) {
    for (const YAML::Node& p : c["ports"]) {
      if (Str(p, "protocol") == "UDP" || Str(p, "protocol") == "SCTP") continue;
      out.push_back(Str(p, "containerPort") + ":" + ProtocolOf(p));
    }
  }
  return out;
}

// "http:8000/healthz" from the first container's readiness probe; "" when it has none that we can repeat.
std::string Ready(const YAML::Node& spec) {
  const YAML::Node c = spec["containers"][0];
  const YAML::Node probe = c["readinessProbe"];
  if (!probe) return "";
  auto number = [&](const YAML::Node& port) {
    if (!port) return std::string();
    const std::string text = port.Scalar();
    for (const YAML::Node& p : c["ports"]) {
      if (Str(p, "name") == text) return Str(p, "containerPort");
    }
    return text;
  };
  if (probe["httpGet"]) {
    std::string path = Str(probe["httpGet"], "path");
    return "http:" + number(probe["httpGet"]["port"]) + (path.empty() ? "/" : path);
  }
  return probe["tcpSocket"] ? "tcp:" + number(probe["tcpSocket"]["port"]) : "";
}

void Flag(std::vector<std::string>& args, const char* flag, const std::string& value) {
  if (value.empty()) return;
  args.push_back(flag);
  args.push_back(value);
}

// ---- Writing

YAML::Node WithoutOurs(const YAML::Node& list) {
  YAML::Node out(YAML::NodeType::Sequence);
  if (!list) return out;
  for (const YAML::Node& item : list) {
    const std::string name = Str(item, "name");
    if (name != kIntercept && name != kSidecar && name != kTokenVolume && name != kRunVolume) out.push_back(item);
  }
  return out;
}

YAML::Node InterceptContainer(const Options& o, const YAML::Node& annotations) {
  YAML::Node c;
  c["name"] = kIntercept;
  c["image"] = o.image;
  std::vector<std::string> args = {"weft", "intercept", "--sidecar-uid", std::to_string(kSidecarUid)};
  std::string inbound = Str(annotations, "weft/exclude-inbound-ports");
  Flag(args, "--exclude-inbound-ports", inbound.empty() ? "22" : inbound);
  Flag(args, "--exclude-outbound-ports", Str(annotations, "weft/exclude-outbound-ports"));
  Flag(args, "--exclude-outbound-cidrs", Str(annotations, "weft/exclude-outbound-cidrs"));
  c["command"] = Strings(args);
  YAML::Node s;
  s["runAsUser"] = 0;
  s["runAsNonRoot"] = false;
  s["allowPrivilegeEscalation"] = false;
  s["readOnlyRootFilesystem"] = true;
  s["capabilities"]["drop"].push_back("ALL");
  s["capabilities"]["add"].push_back("NET_ADMIN");
  c["securityContext"] = s;
  return c;
}

YAML::Node FieldEnv(const char* name, const char* path) {
  YAML::Node e;
  e["name"] = name;
  e["valueFrom"]["fieldRef"]["fieldPath"] = path;
  return e;
}

YAML::Node Mount(const char* name, const char* path, bool read_only) {
  YAML::Node m;
  m["name"] = name;
  m["mountPath"] = path;
  if (read_only) m["readOnly"] = true;
  return m;
}

YAML::Node SidecarContainer(const Options& o, const std::string& service, const std::string& version,
                            const std::vector<std::string>& ports, const std::string& ready) {
  std::vector<std::string> args = {"weft", "run", "--no-netns", "--no-intercept", "--service", service,
                                   "--namespace", "$(POD_NAMESPACE)", "--version", version, "--address", "$(POD_IP)"};
  for (const auto& p : ports) Flag(args, "--port", p);
  Flag(args, "--ready", ready);
  Flag(args, "--xds-server", o.xds_server);
  Flag(args, "--trust-domain", o.trust_domain);
  Flag(args, "--join-token-file", "/var/run/secrets/weft/token");
  Flag(args, "--sidecar-uid", std::to_string(kSidecarUid));
  Flag(args, "--run-dir", "/var/run/weft");
  Flag(args, "--drain-time", "5");
  YAML::Node c;
  c["name"] = kSidecar;
  c["image"] = o.image;
  c["restartPolicy"] = "Always";
  c["command"] = Strings(args);
  c["env"].push_back(FieldEnv("POD_IP", "status.podIP"));
  c["env"].push_back(FieldEnv("POD_NAMESPACE", "metadata.namespace"));
  // The next container starts when the sidecar serves.
  c["startupProbe"]["exec"]["command"] = Strings({"weft", "ready", "--run-dir", "/var/run/weft"});
  c["startupProbe"]["periodSeconds"] = 1;
  c["startupProbe"]["failureThreshold"] = 600;
  c["resources"]["requests"]["cpu"] = Quoted("50m");
  c["resources"]["requests"]["memory"] = Quoted("64Mi");
  YAML::Node s;
  s["runAsUser"] = kSidecarUid;
  s["runAsGroup"] = kSidecarUid;
  s["runAsNonRoot"] = true;
  s["allowPrivilegeEscalation"] = false;
  s["readOnlyRootFilesystem"] = true;
  s["capabilities"]["drop"].push_back("ALL");
  c["securityContext"] = s;
  c["volumeMounts"].push_back(Mount(kTokenVolume, "/var/run/secrets/weft", true));
  c["volumeMounts"].push_back(Mount(kRunVolume, "/var/run/weft", false));
  return c;
}

YAML::Node TokenVolume(const std::string& secret) {
  YAML::Node item;
  item["key"] = "token";
  item["path"] = "token";
  YAML::Node source;
  source["secret"]["name"] = secret;
  source["secret"]["items"].push_back(item);
  YAML::Node v;
  v["name"] = kTokenVolume;
  v["projected"]["sources"].push_back(source);
  return v;
}

YAML::Node RunVolume() {
  YAML::Node v;
  v["name"] = kRunVolume;
  v["emptyDir"]["medium"] = "Memory";
  return v;
}

// What was done, as a note.
std::string InjectPod(YAML::Node doc, YAML::Node pod, const Options& o, std::vector<std::string>& notes) {
  const std::string object = Str(doc, "kind") + "/" + (doc["metadata"] ? Str(doc["metadata"], "name") : "");
  const YAML::Node meta = pod["metadata"] ? pod["metadata"] : YAML::Node(YAML::NodeType::Map);
  const YAML::Node annotations = meta["annotations"] ? meta["annotations"] : YAML::Node(YAML::NodeType::Map);
  const YAML::Node labels = meta["labels"] ? meta["labels"] : YAML::Node(YAML::NodeType::Map);
  if (Str(annotations, "weft/inject") == "false") return object + ": left alone (weft/inject: \"false\")";
  YAML::Node spec = pod["spec"];
  if (!spec || !spec["containers"] || spec["containers"].size() == 0) throw std::runtime_error(object + ": spec.containers is missing");
  if (spec["hostNetwork"] && spec["hostNetwork"].as<bool>(false)) {
    return object + ": left alone (hostNetwork: its rules would be the node's)";
  }
  std::string service = Str(annotations, "weft/service");
  if (service.empty()) service = Str(labels, "app");
  if (service.empty() && doc["metadata"]) service = Str(doc["metadata"], "name");
  if (service.empty()) throw std::runtime_error(object + ": no name for the service (label \"app\" or annotation weft/service)");
  std::string version = Str(annotations, "weft/version");
  if (version.empty()) version = Str(labels, "version");
  if (version.empty()) version = "v1";
  const std::vector<std::string> ports = Ports(spec, Str(annotations, "weft/ports"));
  if (ports.empty()) throw std::runtime_error(object + ": no port (containers[].ports or annotation weft/ports)");
  std::string ready = Str(annotations, "weft/ready");
  if (ready.empty()) ready = Ready(spec);
  for (const YAML::Node& c : spec["containers"]) {
    if (c["securityContext"] && Str(c["securityContext"], "runAsUser") == std::to_string(kSidecarUid)) {
      throw std::runtime_error(object + ": container " + Str(c, "name") + " runs as user 1337, which is the sidecar's");
    }
  }
  if (Str(spec, "shareProcessNamespace") == "true") {
    notes.push_back(object + ": shareProcessNamespace lets a root container look into the sidecar");
  }

  YAML::Node init(YAML::NodeType::Sequence);
  init.push_back(InterceptContainer(o, annotations));
  init.push_back(SidecarContainer(o, service, version, ports, ready));
  for (const YAML::Node& c : WithoutOurs(spec["initContainers"])) init.push_back(c);
  spec["initContainers"] = init;
  YAML::Node volumes = WithoutOurs(spec["volumes"]);
  volumes.push_back(TokenVolume(o.token_secret.empty() ? "weft-join-" + service : o.token_secret));
  volumes.push_back(RunVolume());
  spec["volumes"] = volumes;
  pod["metadata"]["annotations"]["weft/injected"] = Quoted("true");
  return object + ": injected as service " + service + ", version " + version;
}

}  // namespace

Outcome Inject(const std::string& manifests, const Options& options) {
  Outcome out;
  try {
    bool first = true;
    int index = 0;
    for (YAML::Node doc : base::LoadYaml(manifests)) {
      index++;
      if (doc.IsNull()) continue;
      if (!doc.IsMap()) throw std::runtime_error("document " + std::to_string(index) + " is not an object");
      std::vector<YAML::Node> objects = {doc};
      if (Str(doc, "kind") == "List") {
        objects.clear();
        for (YAML::Node item : doc["items"]) objects.push_back(item);
      }
      for (YAML::Node& o : objects) {
        YAML::Node pod = PodOf(o);
        if (pod.IsDefined() && pod.IsMap()) out.notes.push_back(InjectPod(o, pod, options, out.notes));
      }
      if (!first) out.text += "---\n";
      first = false;
      Emit(doc, 0, out.text);
    }
  } catch (const std::exception& e) {
    out.error = e.what();
    out.text.clear();
  }
  return out;
}

}  // namespace weft::inject
