// Working memory that a thread keeps between calls: allocating it each time would touch new pages each time.
#pragma once

#include <cstdlib>
#include <new>

namespace {

// At least `count` items of the calling thread, not initialised; another call with the same Use gives the same memory.
template <class Use, class T>
T* scratch(size_t count) {
  thread_local struct Buffer {
    void* memory = nullptr;
    size_t size = 0;
    ~Buffer() { free(memory); }
  } buffer;
  const size_t needed = (count * sizeof(T) + 63) / 64 * 64;
  if (needed > buffer.size) {
    free(buffer.memory);
    buffer.size = 0;
    buffer.memory = aligned_alloc(64, needed);
    if (!buffer.memory) throw std::bad_alloc();
    buffer.size = needed;
  }
  return static_cast<T*>(buffer.memory);
}

}  // namespace
