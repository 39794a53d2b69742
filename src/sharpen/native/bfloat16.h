// Numbers of the type bfloat16, and float32 by the same names.

#pragma once

#include <cstdint>
#include <cstring>

namespace {

struct bf16 {
    uint16_t bits;
};

inline float load(float x) { return x; }

inline float load(bf16 x) {
    const uint32_t wide = static_cast<uint32_t>(x.bits) << 16;
    float y;
    std::memcpy(&y, &wide, 4);
    return y;
}

inline void store(float* to, float x) { *to = x; }

// Round to nearest, ties to even; a NaN stays one.
inline void store(bf16* to, float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    to->bits = static_cast<uint16_t>(x != x ? 0x7fc0u : rounded);
}

}  // namespace
