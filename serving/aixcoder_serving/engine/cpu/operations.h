// The operations, as layer.cpp calls them and ctypes does. What they compute is said where they are defined.
#pragma once

#include <cstdint>

extern "C" {
void aix_linear(const void* x, const void* packed, void* y, long rows, long width, long columns, int bf16);
void aix_rms_norm(const void* x, void* residual, const void* weight, void* out, long rows, long width, float eps,
                  int bf16);
void aix_silu_mul(const void* gate_up, void* out, long rows, long width, int bf16);
void aix_rope_and_store(const void* qkv, void* q, long heads, void* cache, long kv_heads, long head_dim,
                        long block_size, const float* cos, const float* sin, const int32_t* positions,
                        const int32_t* query_start, const int32_t* slots, const int32_t* tables, long tokens,
                        long sequences, long table_width, int bf16);
void aix_attend(const void* q, void* out, long heads, void* cache, long kv_heads, long head_dim, long block_size,
                const int32_t* positions, const int32_t* query_start, const int32_t* slots, const int32_t* tables,
                long tokens, long sequences, long table_width, int bf16);
}
