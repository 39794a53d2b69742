// Characters, hashes and counting that kernels on texts share: tables, UTF-8, a hash table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace {

// Bits of the table of characters; as in sharpen/data/statistics/characters.py.
enum : uint8_t { ALNUM = 1, ALPHA = 2, DIGIT = 4, SPACE = 8, UPPER = 16, SPECIAL = 32, LINE = 64 };

constexpr uint64_t BASIS = 0xcbf29ce484222325ull, PRIME = 0x100000001b3ull;
constexpr uint64_t RADIX = 0x9e3779b97f4a7c15ull;

inline uint64_t mixed(uint64_t x) {  // the finalizer of SplitMix64
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

// The code point at p, which moves on; the text is valid UTF-8.
inline uint32_t next(const uint8_t*& p) {
    const uint32_t first = *p++;
    if (first < 0x80) return first;
    if (first < 0xe0) {
        const uint32_t c = (first & 0x1f) << 6 | (p[0] & 0x3f);
        p += 1;
        return c;
    }
    if (first < 0xf0) {
        const uint32_t c = (first & 0x0f) << 12 | uint32_t(p[0] & 0x3f) << 6 | (p[1] & 0x3f);
        p += 2;
        return c;
    }
    const uint32_t c = (first & 0x07) << 18 | uint32_t(p[0] & 0x3f) << 12 |
                       uint32_t(p[1] & 0x3f) << 6 | (p[2] & 0x3f);
    p += 3;
    return c;
}

// How often each of `keys` occurs: open addressing, a power of two of places, at most half full.
class Counter {
public:
    void start(size_t keys) {
        size_t places = 16;
        while (places < 2 * keys) places *= 2;
        mask_ = places - 1;
        keys_.assign(places, 0);
        counts_.assign(places, 0);
    }
    // The count so far, this time included.
    uint32_t add(uint64_t key) {
        key |= key == 0;
        size_t i = mixed(key) & mask_;
        while (keys_[i] != 0 && keys_[i] != key) i = (i + 1) & mask_;
        keys_[i] = key;
        return ++counts_[i];
    }
    bool has(uint64_t key) const { return count(key) > 0; }
    uint32_t count(uint64_t key) const {
        key |= key == 0;
        size_t i = mixed(key) & mask_;
        while (keys_[i] != 0 && keys_[i] != key) i = (i + 1) & mask_;
        return counts_[i];
    }
    const std::vector<uint32_t>& counts() const { return counts_; }

private:
    std::vector<uint64_t> keys_;
    std::vector<uint32_t> counts_;
    size_t mask_ = 0;
};

}  // namespace
