#include "tools/weft/inject/inject.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <sstream>

namespace weft::inject {
namespace {

std::string Load(const std::string& name) {
  std::ifstream in("tools/weft/inject/testdata/" + name);
  EXPECT_TRUE(in) << name;
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string Pod(const std::string& annotations, const std::string& spec) {
  return "kind: Pod\nmetadata:\n  name: p\n" + annotations + "spec:\n" + spec;
}

// To renew: bazel run //tools/weft -- inject -f .../cart.in.yaml > .../cart.out.yaml, and read the difference.
TEST(Inject, Golden) {
  const Outcome out = Inject(Load("cart.in.yaml"), {});
  EXPECT_EQ(out.error, "");
  EXPECT_EQ(out.text, Load("cart.out.yaml"));
  ASSERT_EQ(out.notes.size(), 1u);
  EXPECT_EQ(out.notes[0], "Deployment/cart: injected as service cart, version v2");
}

// Multi-document, a List, comments everywhere, fields nobody knows, each way to probe.
TEST(Inject, GoldenKinds) {
  const Outcome out = Inject(Load("kinds.in.yaml"), {});
  EXPECT_EQ(out.error, "");
  EXPECT_EQ(out.text, Load("kinds.out.yaml"));
  EXPECT_EQ(out.notes, (std::vector<std::string>{
                           "StatefulSet/db: injected as service db, version v1",
                           "DaemonSet/agent: container agent: startupProbe is left alone (HTTPS, or a host of its own): the kubelet "
                           "reaches it only if weft/exclude-inbound-ports names its port",
                           "DaemonSet/agent: injected as service agent, version v1", "CronJob/report: injected as service report, version v1",
                           "Job/migrate: left alone (weft/inject: \"false\")", "Pod/lone: injected as service lone, version v7"}));
}

TEST(Inject, TwiceIsOnce) {
  for (const char* file : {"cart.in.yaml", "kinds.in.yaml"}) {
    const std::string once = Inject(Load(file), {}).text;
    EXPECT_EQ(Inject(once, {}).text, once) << file;
  }
}

// Nothing of the author's may go: every line of the input is in the output, in order, but those of rewritten probes.
TEST(Inject, KeepsWhatItDoesNotTouch) {
  std::istringstream in(Load("kinds.in.yaml"));
  const std::string out = Inject(Load("kinds.in.yaml"), {}).text;
  size_t at = 0, lost = 0;
  for (std::string line; std::getline(in, line);) {
    const size_t found = out.find(line + "\n", at);
    if (found == std::string::npos) lost++;
    else at = found + line.size();
  }
  EXPECT_EQ(lost, 9u);  // tcpSocket 1, grpc 3, httpGet 5
}

TEST(Inject, JsonComesBackAsTheSameObject) {
  const Outcome out = Inject(R"({"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}]}]}})", {});
  EXPECT_EQ(out.error, "");
  EXPECT_NE(out.text.find("weft-sidecar"), std::string::npos);
}

TEST(Inject, ProbesAreLeftAloneWhereTheAuthorSaysSo) {
  const std::string spec = "  containers:\n  - name: c\n    ports: [{containerPort: 80}]\n    livenessProbe: {tcpSocket: {port: 80}}\n";
  EXPECT_NE(Inject(Pod("", spec), {}).text.find("WEFT_APP_PROBES"), std::string::npos);
  const std::string out = Inject(Pod("  annotations:\n    weft/rewrite-probes: \"false\"\n", spec), {}).text;
  EXPECT_EQ(out.find("WEFT_APP_PROBES"), std::string::npos);
  EXPECT_NE(out.find("livenessProbe: {tcpSocket: {port: 80}}"), std::string::npos);
}

TEST(Inject, WithoutPortsItOnlyCalls) {
  const Outcome out = Inject(Pod("", "  containers:\n  - name: c\n"), {});
  EXPECT_EQ(out.error, "");
  EXPECT_EQ(out.text.find("--port"), std::string::npos);
  ASSERT_EQ(out.notes.size(), 2u);
  EXPECT_NE(out.notes[0].find("Pod/p: no port"), std::string::npos);
}

TEST(Inject, ANewerImageReplacesTheOldOne) {
  const std::string once = Inject(Load("cart.in.yaml"), {}).text;
  const std::string twice = Inject(once, {.image = "weft/sidecar:2"}).text;
  EXPECT_NE(twice.find("weft/sidecar:2"), std::string::npos);
  EXPECT_EQ(twice.find("weft/sidecar:0.1.0"), std::string::npos);
}

TEST(Inject, LeavesAloneWhatItShould) {
  const std::string spec = "  containers:\n  - name: c\n    image: i\n    ports:\n    - containerPort: 80\n";
  Outcome out = Inject(Pod("  annotations:\n    weft/inject: \"false\"\n", spec), {});
  EXPECT_EQ(out.text.find("weft-sidecar"), std::string::npos);
  out = Inject(Pod("", "  hostNetwork: true\n" + spec), {});
  EXPECT_EQ(out.text.find("weft-sidecar"), std::string::npos);
  EXPECT_NE(out.notes[0].find("hostNetwork"), std::string::npos);
  EXPECT_EQ(Inject("kind: ConfigMap\ndata:\n  port: \"8080\"\n", {}).text, "kind: ConfigMap\ndata:\n  port: \"8080\"\n");
}

TEST(Inject, EveryKindThatHoldsAPod) {
  const std::string template_text =
      "template:\n    spec:\n      containers:\n      - {name: c, image: i, ports: [{containerPort: 50051, name: grpc}]}\n";
  for (const char* kind : {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"}) {
    const Outcome out = Inject(std::string("kind: ") + kind + "\nmetadata: {name: x}\nspec:\n  " + template_text, {});
    EXPECT_EQ(out.error, "") << kind;
    EXPECT_NE(out.text.find("\"50051:grpc\""), std::string::npos) << kind;
  }
  const Outcome list = Inject(
      "kind: List\nitems:\n- kind: Pod\n  metadata: {name: a}\n  spec: {containers: [{name: c, ports: [{containerPort: 1}]}]}\n", {});
  EXPECT_NE(list.text.find("weft-sidecar"), std::string::npos);
}

TEST(Inject, RefusesWithTheObjectsName) {
  EXPECT_NE(Inject(Pod("", "  containers: []\n"), {}).error.find("spec.containers"), std::string::npos);
  EXPECT_NE(Inject(Pod("", "  containers:\n  - name: c\n    securityContext: {runAsUser: 1337}\n    ports: [{containerPort: 1}]\n"), {})
                .error.find("1337"),
            std::string::npos);
  EXPECT_NE(Inject("a: [", {}).error, "");
  EXPECT_NE(Inject("- just\n- a list\n", {}).error, "");
}

}  // namespace
}  // namespace weft::inject
