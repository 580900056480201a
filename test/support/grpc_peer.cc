// An application that speaks gRPC (grpc++), server or client of weft.test.Echo; grpc_peer.py is its twin.
//   grpc_peer server PORT     every answer compressed with gzip; prints "cancelled" for each call that its caller gave up
//   grpc_peer client PORT     calls everything and prints one line of JSON: what came of each call
// Bodies: "echo TEXT"; "fail" ends with a status that has details; "wait" answers only once it is cancelled; "big N" answers N bytes.
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "test/support/echo.grpc.pb.h"

namespace {

using weft::test::Message;
using namespace std::chrono_literals;
constexpr char kDetails[] = "\x08\x05\x12\x04gone";  // a google.rpc.Status: {code: 5, message: "gone"}

std::string Answer(const std::string& body) {
  return body.rfind("big ", 0) == 0 ? std::string(std::stoul(body.substr(4)), 'x') : body;
}

class Service final : public weft::test::Echo::Service {
  grpc::Status Begin(grpc::ServerContext* context, const std::string& body) {
    context->set_compression_algorithm(GRPC_COMPRESS_GZIP);
    const auto told = context->client_metadata().find("x-told");
    if (told != context->client_metadata().end()) context->AddTrailingMetadata("x-told", {told->second.data(), told->second.size()});
    if (body == "fail") return {grpc::StatusCode::NOT_FOUND, "gone: \xc3\xa9%", std::string(kDetails, sizeof kDetails - 1)};
    if (body != "wait") return grpc::Status::OK;
    for (int i = 0; i < 2000 && !context->IsCancelled(); ++i) std::this_thread::sleep_for(5ms);
    puts(context->IsCancelled() ? "cancelled" : "never cancelled");
    fflush(stdout);
    return grpc::Status::CANCELLED;
  }
  grpc::Status Unary(grpc::ServerContext* context, const Message* in, Message* out) override {
    out->set_body(Answer(in->body()));
    return Begin(context, in->body());
  }
  grpc::Status Down(grpc::ServerContext* context, const Message* in, grpc::ServerWriter<Message>* out) override {
    Message m;
    if (auto s = Begin(context, in->body()); !s.ok() && in->body() != "fail") return s;
    for (int i = 0; i < 5; ++i) m.set_body(std::to_string(i) + " " + Answer(in->body())), out->Write(m);
    return in->body() == "fail" ? Begin(context, "fail") : grpc::Status::OK;
  }
  grpc::Status Up(grpc::ServerContext* context, grpc::ServerReader<Message>* in, Message* out) override {
    Message m;
    std::string all;
    while (in->Read(&m)) {
      if (m.body() == "fail") return Begin(context, "fail");
      all += m.body() + ";";
    }
    out->set_body(all);
    return Begin(context, "");
  }
  grpc::Status Both(grpc::ServerContext* context, grpc::ServerReaderWriter<Message, Message>* stream) override {
    Begin(context, "");
    Message m;
    while (stream->Read(&m)) {
      if (m.body() == "fail") return Begin(context, "fail");
      if (m.body() == "wait") return Begin(context, "wait");
      m.set_body(Answer(m.body()));
      stream->Write(m);
    }
    return grpc::Status::OK;
  }
};

int Serve(const std::string& port) {
  Service service;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:" + port, grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();
  if (!server) return 1;
  server->Wait();
  return 0;
}

nlohmann::json Outcome(const grpc::ClientContext& context, const grpc::Status& s, std::vector<std::string> bodies) {
  for (std::string& b : bodies) {
    if (b.size() > 100) b = b.substr(0, 4) + "..." + std::to_string(b.size());
  }
  const auto& trailing = context.GetServerTrailingMetadata();
  const auto told = trailing.find("x-told");
  return {{"code", static_cast<int>(s.error_code())}, {"message", s.error_code() == 5 ? s.error_message() : ""}, {"bodies", bodies},
          {"details", s.error_details() == std::string(kDetails, sizeof kDetails - 1)}, {"told", told == trailing.end() ? "" : std::string(told->second.data(), told->second.size())}};
}

int Call(const std::string& port) {
  grpc::ChannelArguments arguments;
  arguments.SetCompressionAlgorithm(GRPC_COMPRESS_GZIP);
  const auto stub = weft::test::Echo::NewStub(grpc::CreateCustomChannel("127.0.0.1:" + port, grpc::InsecureChannelCredentials(), arguments));
  nlohmann::json results;
  Message m;
  const auto prepare = [&m](grpc::ClientContext& c, const std::string& body) {
    c.AddMetadata("x-told", "yes");
    c.set_deadline(std::chrono::system_clock::now() + (body == "wait" ? 300ms : 20000ms));
    m.set_body(body);
  };
  for (const std::string body : {"echo hello", "big 300000", "fail", "wait"}) {
    {
      grpc::ClientContext c;
      prepare(c, body);
      Message out;
      const auto s = stub->Unary(&c, m, &out);
      results["unary " + body] = Outcome(c, s, {s.ok() ? out.body() : ""});
    }
    {
      grpc::ClientContext c;
      prepare(c, body);
      std::vector<std::string> got;
      auto r = stub->Down(&c, m);
      for (Message out; r->Read(&out);) got.push_back(out.body());
      const auto s = r->Finish();
      results["down " + body] = Outcome(c, s, got);
    }
    {
      grpc::ClientContext c;
      prepare(c, body);
      std::vector<std::string> got;
      auto rw = stub->Both(&c);
      Message out;
      for (int i = 0; i < 5 && rw->Write(m) && rw->Read(&out); ++i) got.push_back(out.body());
      rw->WritesDone();
      while (rw->Read(&out)) got.push_back(out.body());
      const auto s = rw->Finish();
      results["both " + body] = Outcome(c, s, got);
    }
    if (body == "wait") continue;
    grpc::ClientContext c;
    prepare(c, body);
    Message out;
    auto w = stub->Up(&c, &out);
    for (int i = 0; i < 5 && w->Write(m); ++i) {}
    w->WritesDone();
    const auto s = w->Finish();
    results["up " + body] = Outcome(c, s, {s.ok() ? out.body() : ""});
  }
  grpc::ClientContext c;
  prepare(c, "echo hello");
  Message out;
  auto rw = stub->Both(&c);
  rw->Write(m), rw->Read(&out);
  m.set_body("wait");
  rw->Write(m);
  std::this_thread::sleep_for(200ms);  // the server is in its wait
  c.TryCancel();
  const auto s = rw->Finish();
  results["cancelled"] = Outcome(c, s, {out.body()});
  puts(results.dump().c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  return std::string(argv[1]) == "server" ? Serve(argv[2]) : Call(argv[2]);
}
