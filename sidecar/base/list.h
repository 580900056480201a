// Intrusive doubly linked list: no allocation, O(1) unlink from anywhere. A node unlinks itself when destroyed.
#pragma once

namespace weft::base {

struct ListNode {
  ListNode() = default;
  ListNode(const ListNode&) = delete;
  ListNode& operator=(const ListNode&) = delete;
  ~ListNode() { Unlink(); }

  bool linked() const { return next != nullptr; }
  void Unlink() {
    if (!next) return;
    prev->next = next;
    next->prev = prev;
    next = prev = nullptr;
  }
  void InsertBefore(ListNode* at) {
    Unlink();
    next = at, prev = at->prev;
    prev->next = this, at->prev = this;
  }
  ListNode* next = nullptr;
  ListNode* prev = nullptr;
};

// T derives from ListNode. The list owns nothing.
template <typename T>
class List {
 public:
  List() { root_.next = root_.prev = &root_; }
  ~List() {
    while (!empty()) root_.next->Unlink();
    root_.next = root_.prev = nullptr;
  }
  bool empty() const { return root_.next == &root_; }
  void PushBack(T* n) { n->InsertBefore(&root_); }
  void PushFront(T* n) { n->InsertBefore(root_.next); }
  T* front() const { return empty() ? nullptr : static_cast<T*>(root_.next); }
  T* back() const { return empty() ? nullptr : static_cast<T*>(root_.prev); }
  T* PopFront() {
    T* n = front();
    if (n) n->Unlink();
    return n;
  }
  // The node after n, or null at the end.
  T* Next(T* n) const { return n->next == &root_ ? nullptr : static_cast<T*>(n->next); }
  // Takes all of other's nodes to our end; O(1).
  void TakeAll(List& other) {
    if (other.empty()) return;
    ListNode* first = other.root_.next;
    ListNode* last = other.root_.prev;
    other.root_.next = other.root_.prev = &other.root_;
    first->prev = root_.prev, root_.prev->next = first;
    last->next = &root_, root_.prev = last;
  }

 private:
  ListNode root_;
};

}  // namespace weft::base
