// Spike: epoll against io_uring for the proxy's pattern: many small request/response turns on kept connections. An echo
// server of each kind in one thread, the same client; prints the server's CPU per message.
//   bazel run --config=opt //test/spikes:poller -- [connections] [messages]
#define _GNU_SOURCE
#include <errno.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { kSize = 512, kMax = 1024 };
static int connections = 64, messages = 200000;
static int server_fd[kMax], client_fd[kMax];

static double thread_cpu(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static double result_cpu;

static void* serve_epoll(void* arg) {
  (void)arg;
  int ep = epoll_create1(0), open = connections;
  char buf[kSize];
  for (int i = 0; i < connections; ++i) {
    struct epoll_event e = {.events = EPOLLIN | EPOLLET, .data.u32 = i};
    epoll_ctl(ep, EPOLL_CTL_ADD, server_fd[i], &e);
  }
  double begin = thread_cpu();
  while (open) {
    struct epoll_event ev[64];
    int n = epoll_wait(ep, ev, 64, -1);
    for (int i = 0; i < n; ++i) {
      int fd = server_fd[ev[i].data.u32];
      ssize_t got = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
      if (got > 0) {
        if (send(fd, buf, got, MSG_NOSIGNAL) != got) abort();
      } else if (got == 0) {
        --open;
        epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL);
      }
    }
  }
  result_cpu = thread_cpu() - begin;
  close(ep);
  return NULL;
}

// One ring; a recv is always armed per connection, its completion queues the send and the next recv; one enter a turn.
static void* serve_uring(void* arg) {
  (void)arg;
  struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
  int ring = syscall(SYS_io_uring_setup, 4096, &p);
  if (ring < 0) {
    result_cpu = -errno;
    for (int i = 0; i < connections; ++i) shutdown(server_fd[i], SHUT_RDWR);
    return NULL;
  }
  char* sq = mmap(0, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
  char* cq = mmap(0, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_CQ_RING);
  struct io_uring_sqe* sqes = mmap(0, p.sq_entries * sizeof *sqes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
  unsigned *tail = (unsigned*)(sq + p.sq_off.tail), mask = *(unsigned*)(sq + p.sq_off.ring_mask), *array = (unsigned*)(sq + p.sq_off.array);
  unsigned *chead = (unsigned*)(cq + p.cq_off.head), *ctail = (unsigned*)(cq + p.cq_off.tail), cmask = *(unsigned*)(cq + p.cq_off.ring_mask);
  struct io_uring_cqe* cqes = (struct io_uring_cqe*)(cq + p.cq_off.cqes);
  static char buf[kMax][kSize];
  int open = connections;
  unsigned queued = 0;
#define QUEUE(OP, I, LEN)                                                                           \
  do {                                                                                              \
    unsigned at = (*tail + queued) & mask;                                                          \
    sqes[at] = (struct io_uring_sqe){.opcode = OP, .fd = server_fd[I], .addr = (uintptr_t)buf[I],   \
                                     .len = LEN, .user_data = (uint64_t)(I) << 1 | (OP == IORING_OP_SEND)}; \
    array[at] = at, ++queued;                                                                       \
  } while (0)
  double begin = thread_cpu();
  for (int i = 0; i < connections; ++i) QUEUE(IORING_OP_RECV, i, kSize);
  while (open) {
    __atomic_store_n(tail, *tail + queued, __ATOMIC_RELEASE);
    syscall(SYS_io_uring_enter, ring, queued, 1, IORING_ENTER_GETEVENTS, NULL, 0);
    queued = 0;
    unsigned h = *chead, t = __atomic_load_n(ctail, __ATOMIC_ACQUIRE);
    for (; h != t; ++h) {
      struct io_uring_cqe* c = &cqes[h & cmask];
      int i = c->user_data >> 1;
      if (c->user_data & 1) {
        QUEUE(IORING_OP_RECV, i, kSize);
      } else if (c->res > 0) {
        QUEUE(IORING_OP_SEND, i, (unsigned)c->res);
      } else {
        --open;
      }
    }
    __atomic_store_n(chead, h, __ATOMIC_RELEASE);
  }
  result_cpu = thread_cpu() - begin;
  close(ring);
  return NULL;
}

static void client(void) {
  struct pollfd p[kMax];
  char buf[kSize] = {0};
  int sent = 0, back = 0;
  for (int i = 0; i < connections; ++i) {
    p[i] = (struct pollfd){client_fd[i], POLLIN, 0};
    if (send(client_fd[i], buf, kSize, MSG_NOSIGNAL) != kSize) return;
    ++sent;
  }
  while (back < messages) {
    poll(p, connections, -1);
    for (int i = 0; i < connections; ++i) {
      if (!p[i].revents) continue;
      if (recv(client_fd[i], buf, kSize, MSG_WAITALL) <= 0) return;
      if (++back, sent < messages) {
        send(client_fd[i], buf, kSize, MSG_NOSIGNAL);
        ++sent;
      }
    }
  }
}

static void measure(const char* name, void* (*serve)(void*)) {
  int l = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof a;
  bind(l, (struct sockaddr*)&a, len);
  listen(l, kMax);
  getsockname(l, (struct sockaddr*)&a, &len);
  for (int i = 0; i < connections; ++i) {
    client_fd[i] = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(client_fd[i], (struct sockaddr*)&a, len)) abort();
    server_fd[i] = accept(l, NULL, NULL);
    setsockopt(client_fd[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(server_fd[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  }
  pthread_t t;
  pthread_create(&t, NULL, serve, NULL);
  client();
  for (int i = 0; i < connections; ++i) shutdown(client_fd[i], SHUT_WR);
  pthread_join(t, NULL);
  for (int i = 0; i < connections; ++i) close(client_fd[i]), close(server_fd[i]);
  close(l);
  printf("%-9s %4d connections  %6.2f us CPU a message\n", name, connections, result_cpu / messages * 1e6);
}

int main(int argc, char** argv) {
  if (argc > 1) connections = atoi(argv[1]) < kMax ? atoi(argv[1]) : kMax;
  if (argc > 2) messages = atoi(argv[2]);
  for (int i = 0; i < 3; ++i) {
    measure("epoll", serve_epoll);
    measure("io_uring", serve_uring);
  }
  return 0;
}
