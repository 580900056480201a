#include "xds_server/store/store.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>

namespace weft::server {
namespace {

std::string TempPath() {
  std::string dir = std::string(std::getenv("TEST_TMPDIR") ? std::getenv("TEST_TMPDIR") : "/tmp") + "/storeXXXXXX";
  return std::string(mkdtemp(dir.data())) + "/weft.db";
}

std::unique_ptr<Store> OpenOrDie(const std::string& path) {
  auto s = Store::Open(path);
  if (!s) ADD_FAILURE() << s.error().ToString();
  return std::move(*s);
}

Store::Write Put(const std::string& name, const std::string& content) { return {"Route", {"default", name}, content}; }

TEST(Store, RevisionsHistoryAndRollback) {
  auto s = OpenOrDie(":memory:");
  EXPECT_EQ(s->revision(), 0u);
  auto r1 = s->Commit("apply", "", {Put("a", "1"), Put("b", "1")}, 1000, false);
  EXPECT_EQ(r1->number, 1u);
  EXPECT_STREQ(r1->changes[0].action(), "created");
  auto same = s->Commit("apply", "", {Put("a", "1")}, 1000, false);
  EXPECT_EQ(same->number, 1u);
  EXPECT_STREQ(same->changes[0].action(), "unchanged");
  auto dry = s->Commit("apply", "", {Put("a", "9")}, 1000, true);
  EXPECT_EQ(dry->number, 2u);
  EXPECT_EQ(s->revision(), 1u);
  auto r2 = s->Commit("apply", "", {Put("a", "2"), Put("b", "1"), Put("c", "1")}, 2000, false);
  EXPECT_EQ(r2->number, 2u);
  EXPECT_STREQ(r2->changes[0].action(), "configured");
  EXPECT_STREQ(r2->changes[1].action(), "unchanged");
  auto r3 = s->Commit("delete", "", {{"Route", {"default", "b"}, std::nullopt}}, 3000, false);
  EXPECT_EQ(r3->number, 3u);
  EXPECT_EQ(s->Objects().size(), 2u);

  auto back = s->Rollback(1, 4000);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->number, 4u);
  auto objects = s->Objects();
  ASSERT_EQ(objects.size(), 2u);
  EXPECT_EQ(objects[0].content, "1");
  EXPECT_EQ(objects[1].name.name, "b");
  EXPECT_EQ(objects[1].revision, 4u);
  EXPECT_EQ(s->ObjectsAt(2).size(), 3u);
  EXPECT_FALSE(s->Rollback(9, 0));
  auto history = s->History(2);
  ASSERT_EQ(history.size(), 2u);
  EXPECT_EQ(history[0].action, "rollback");
  EXPECT_EQ(history[1].number, 3u);
  EXPECT_EQ(s->GetRevision(2)->changes.size(), 2u);
  EXPECT_FALSE(s->GetRevision(77));
  EXPECT_EQ(s->Rollback(0, 5000)->number, 5u);
  EXPECT_TRUE(s->Objects().empty());
}

TEST(Store, SurvivesReopenAndKeepsVips) {
  std::string path = TempPath();
  Workload w;
  w.id = "cart-1", w.service = {"default", "cart"}, w.version = "v1", w.address = "10.0.0.1";
  w.ports = {{80, 8000, Protocol::kHttp}, {50051, 50051, Protocol::kGrpc}};
  w.labels["a"] = "b", w.ready = true;
  std::string cart, redis;
  {
    auto s = OpenOrDie(path);
    cart = s->Vip({"default", "cart"}), redis = s->Vip({"default", "redis"});
    EXPECT_EQ(cart, "240.64.0.1");
    EXPECT_NE(cart, redis);
    s->PutWorkload(w, 1);
    s->PutWorkload(w, 2);
    s->PutService({{"default", "cart"}, w.ports, 5});
    ASSERT_TRUE(s->Commit("apply", "m", {Put("a", "1")}, 1, false));
    ASSERT_TRUE(s->SetMeta("epoch", "7"));
  }
  struct stat st {};
  ASSERT_EQ(stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
  auto s = OpenOrDie(path);
  EXPECT_EQ(s->Vip({"default", "redis"}), redis);
  EXPECT_EQ(s->Vip({"default", "cart"}), cart);
  EXPECT_EQ(s->Vip({"default", "new"}), "240.64.0.3");
  ASSERT_EQ(s->Workloads().size(), 1u);
  EXPECT_EQ(s->Workloads()[0], w);
  EXPECT_EQ(s->revision(), 1u);
  EXPECT_EQ(s->Meta("epoch"), "7");
  ASSERT_EQ(s->Services().size(), 1u);
  EXPECT_EQ(s->Services()[0].ports, w.ports);
  EXPECT_EQ(s->Services()[0].seen_unix_ms, 5);
  s->RemoveService({"default", "cart"});
  EXPECT_TRUE(s->Services().empty());
  s->RemoveWorkload("cart-1");
  EXPECT_TRUE(s->Workloads().empty());
}

TEST(Store, TokensAreUsedUp) {
  auto s = OpenOrDie(":memory:");
  ASSERT_TRUE(s->PutToken({"t1", "hash", {"default", "cart"}, 100, 2}));
  EXPECT_FALSE(s->PutToken({"t1", "hash", {"default", "cart"}, 100, 2}));
  EXPECT_TRUE(s->UseToken("t1"));
  EXPECT_TRUE(s->UseToken("t1"));
  EXPECT_FALSE(s->UseToken("t1"));
  EXPECT_FALSE(s->UseToken("t2"));
  EXPECT_EQ(s->FindToken("t1")->uses_left, 0);
  s->RemoveExpiredTokens(101);
  EXPECT_FALSE(s->FindToken("t1"));
}

TEST(Store, RefusesADamagedFile) {
  std::string path = TempPath();
  FILE* f = fopen(path.c_str(), "w");
  fputs("this is not a database, whatever its name says", f);
  fclose(f);
  EXPECT_FALSE(Store::Open(path));
}

}  // namespace
}  // namespace weft::server
