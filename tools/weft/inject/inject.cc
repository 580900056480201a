#include "tools/weft/inject/inject.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "sidecar/base/yaml.h"
#include "tools/weft/inject/patch.h"

namespace weft::inject {
namespace {

constexpr int kSidecarUid = 1337;
constexpr const char* kIntercept = "weft-intercept";
constexpr const char* kSidecar = "weft-sidecar";
constexpr const char* kMetricsPort = "weft/prometheus-port";
constexpr const char* kTokenVolume = "weft-token";
constexpr const char* kRunVolume = "weft-run";
constexpr const char* kProbesEnv = "WEFT_APP_PROBES";
constexpr const char* kHealthPort = "15020";

using Json = nlohmann::ordered_json;

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

// ---- Probes. The kubelet has no certificate: what asks a port of the application is led to the sidecar's container.

// A plain scalar's type is what YAML 1.2 says; a quoted one is a string.
Json ToJson(const YAML::Node& n) {
  if (n.IsMap()) {
    Json out = Json::object();
    for (const auto& item : n) out[item.first.Scalar()] = ToJson(item.second);
    return out;
  }
  if (n.IsSequence()) {
    Json out = Json::array();
    for (const YAML::Node& v : n) out.push_back(ToJson(v));
    return out;
  }
  if (!n.IsScalar()) return nullptr;
  const std::string& text = n.Scalar();
  if (n.Tag() == "!") return text;
  if (text == "true" || text == "false") return text == "true";
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && end == text.data() + text.size()) return number;
  return text;
}

constexpr std::pair<const char*, const char*> kProbes[] = {{"livenessProbe", "livez"}, {"readinessProbe", "readyz"}, {"startupProbe", "startupz"}};
constexpr const char* kAsking[] = {"httpGet", "tcpSocket", "grpc"};

std::string ProbePath(const YAML::Node& container, const char* word) { return "/app-health/" + Str(container, "name") + "/" + word; }

// Gives the probes of an earlier injection their first form back.
void RestoreProbes(YAML::Node spec) {
  Json kept = Json::object();
  for (const YAML::Node& c : spec["initContainers"]) {
    if (Str(c, "name") != kSidecar) continue;
    for (const YAML::Node& e : c["env"]) {
      if (Str(e, "name") == kProbesEnv) kept = Json::parse(Str(e, "value"), nullptr, false);
    }
  }
  if (!kept.is_object()) return;
  for (YAML::Node c : spec["containers"]) {
    for (const auto& [field, word] : kProbes) {
      YAML::Node probe = c[field];
      const auto was = kept.find(ProbePath(c, word));
      if (!probe || !probe["httpGet"] || Str(probe["httpGet"], "port") != kHealthPort || was == kept.end()) continue;
      probe.remove("httpGet");
      for (const char* how : kAsking) {
        if (was->contains(how)) probe[how] = YAML::Load(was->at(how).dump());
      }
    }
  }
}

// Points them at the sidecar's container, and returns what they asked: for kProbesEnv; empty when nothing was there to ask.
Json RewriteProbes(YAML::Node spec, const std::string& object, std::vector<std::string>& notes) {
  Json asked = Json::object();
  for (YAML::Node c : spec["containers"]) {
    for (const auto& [field, word] : kProbes) {
      YAML::Node probe = c[field];
      if (!probe) continue;
      for (const char* how : kAsking) {
        if (!probe[how]) continue;
        if (Str(probe[how], "scheme") == "HTTPS" || !Str(probe[how], "host").empty()) {
          notes.push_back(object + ": container " + Str(c, "name") + ": " + field + " is left alone (HTTPS, or a host of its own): the kubelet "
                          "reaches it only if weft/exclude-inbound-ports names its port");
          continue;
        }
        Json one = Json::object();
        one[how] = ToJson(probe[how]);
        if (one[how].contains("port") && one[how]["port"].is_string()) {
          for (const YAML::Node& p : c["ports"]) {
            if (Str(p, "name") == one[how]["port"].get<std::string>()) one[how]["port"] = ToJson(p["containerPort"]);
          }
        }
        if (probe["timeoutSeconds"]) one["timeoutSeconds"] = ToJson(probe["timeoutSeconds"]);
        asked[ProbePath(c, word)] = one;
        probe.remove(how);
        probe["httpGet"]["path"] = ProbePath(c, word);
        probe["httpGet"]["port"] = kHealthPort;
      }
    }
  }
  return asked;
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

YAML::Node InterceptContainer(const Options& o, const YAML::Node& annotations, bool probes) {
  YAML::Node c;
  c["name"] = kIntercept;
  c["image"] = o.image;
  std::vector<std::string> args = {"weft", "intercept", "--sidecar-uid", std::to_string(kSidecarUid)};
  std::string inbound = Str(annotations, "weft/exclude-inbound-ports");
  if (inbound.empty()) inbound = "22";
  if (std::string metrics = Str(annotations, kMetricsPort); !metrics.empty()) inbound += "," + metrics;
  Flag(args, "--exclude-inbound-ports", inbound + (probes ? std::string(",") + kHealthPort : ""));
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

YAML::Node SidecarContainer(const Options& o, const YAML::Node& annotations, const std::string& service, const std::string& version,
                            const std::vector<std::string>& ports, const std::string& ready, const Json& probes) {
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
  Flag(args, "--prometheus-port", Str(annotations, kMetricsPort));
  if (!probes.empty()) Flag(args, "--health-port", kHealthPort);
  YAML::Node c;
  c["name"] = kSidecar;
  c["image"] = o.image;
  c["restartPolicy"] = "Always";
  c["command"] = Strings(args);
  c["env"].push_back(FieldEnv("POD_IP", "status.podIP"));
  c["env"].push_back(FieldEnv("POD_NAMESPACE", "metadata.namespace"));
  if (!probes.empty()) {
    YAML::Node e;
    e["name"] = kProbesEnv;
    e["value"] = Quoted(probes.dump());
    c["env"].push_back(e);
  }
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
  RestoreProbes(spec);
  const std::vector<std::string> ports = Ports(spec, Str(annotations, "weft/ports"));
  if (ports.empty()) notes.push_back(object + ": no port (containers[].ports or annotation weft/ports): it may call, nobody calls it");
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

  const Json probes = Str(annotations, "weft/rewrite-probes") == "false" ? Json::object() : RewriteProbes(spec, object, notes);

  YAML::Node init(YAML::NodeType::Sequence);
  init.push_back(InterceptContainer(o, annotations, !probes.empty()));
  init.push_back(SidecarContainer(o, annotations, service, version, ports, ready, probes));
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
    const std::vector<YAML::Node> docs = base::LoadYaml(manifests);
    std::vector<YAML::Node> wanted;
    for (const YAML::Node& as_is : docs) {
      YAML::Node doc = YAML::Clone(as_is);
      wanted.push_back(doc);
      if (doc.IsNull()) continue;
      if (!doc.IsMap()) throw std::runtime_error("document " + std::to_string(wanted.size()) + " is not an object");
      std::vector<YAML::Node> objects = {doc};
      const std::string kind = Str(doc, "kind");
      if (kind.size() >= 4 && kind.compare(kind.size() - 4, 4, "List") == 0 && doc["items"]) {
        objects.clear();
        for (YAML::Node item : doc["items"]) objects.push_back(item);
      }
      for (YAML::Node& o : objects) {
        YAML::Node pod = PodOf(o);
        if (pod.IsDefined() && pod.IsMap()) out.notes.push_back(InjectPod(o, pod, options, out.notes));
      }
    }
    out.text = Patch(manifests, docs, wanted);
  } catch (const std::exception& e) {
    out.error = e.what();
  }
  return out;
}

}  // namespace weft::inject
