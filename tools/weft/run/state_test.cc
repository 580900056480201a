#include "tools/weft/run/state.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

namespace weft::run {
namespace {

std::string Fresh() {
  std::string dir = testing::TempDir() + "/weft-XXXXXX";
  return mkdtemp(dir.data());
}

TEST(State, ALiveInstanceStaysAndADeadOneIsCleaned) {
  const std::string dir = Fresh();
  StateLock lock(dir);
  Instance live;
  live.id = "cart-live";
  live.address = "10.77.0.2";
  live.network = "weft0";
  live.supervisor = getpid();
  live.supervisor_start = StartTime(getpid());
  Save(dir, live);
  Instance dead = live;
  dead.id = "cart-dead";
  dead.address = "10.77.0.3";
  dead.supervisor_start++;  // same pid, another process
  Save(dir, dead);
  EXPECT_EQ(FreeAddress(LoadAll(dir), "weft0"), "10.77.0.4");
  EXPECT_EQ(FreeAddress(LoadAll(dir), "other"), "10.77.0.2");
  EXPECT_EQ(CleanStale(dir), std::vector<std::string>{"cart-dead"});
  EXPECT_TRUE(std::filesystem::exists(dir + "/cart-live/instance.json"));
  EXPECT_FALSE(std::filesystem::exists(dir + "/cart-dead"));
  EXPECT_EQ(FreeAddress(LoadAll(dir), "weft0"), "10.77.0.3");
}

TEST(State, ABrokenFileIsAStaleInstance) {
  const std::string dir = Fresh();
  StateLock lock(dir);
  std::filesystem::create_directory(dir + "/x-1");
  FILE* f = fopen((dir + "/x-1/instance.json").c_str(), "w");
  fputs("{\"supervisor\": ", f);
  fclose(f);
  EXPECT_EQ(CleanStale(dir), std::vector<std::string>{"x-1"});
}

TEST(State, LeftoversAreFoundByTheirEnvironment) {
  const pid_t pid = fork();
  if (pid == 0) {
    setenv("WEFT_INSTANCE", "test-leftover-77", 1);
    execlp("sleep", "sleep", "60", nullptr);
    _exit(1);
  }
  // The environment is the new one only after exec.
  while (!KillLeftovers("test-leftover-77")) usleep(1000);
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_FALSE(KillLeftovers("test-leftover-77"));
}

TEST(Addresses, IndexIsTheHostPart) {
  EXPECT_EQ(AddressIndex("10.77.0.2"), 2u);
  EXPECT_EQ(AddressIndex("10.77.1.2"), 258u);
}

}  // namespace
}  // namespace weft::run
