// What near duplicates are told by: signatures and sets of shingles, and the joining of pairs.
// Twins: sharpen/data/statistics/minhash.py, shingles.py, joining.py. A shingle is a run of `window`
// tokens; all of a text with fewer tokens is one shingle. Tokens are what spaces (and line feeds
// and tabs, with `lines`) part, or single code points with `points`; `fold` is a table to lower
// case, or the code points themselves.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "text.h"

namespace {

struct Kind {
    const uint32_t* fold;
    bool points, lines;
    int64_t window;
};

// Calls `take` with the 64-bit hash of every shingle of a text, in order.
template <class Take>
void each_shingle(const uint8_t* p, const uint8_t* end, const Kind& kind,
                  std::vector<uint64_t>& tokens, Take take) {
    tokens.clear();
    while (p < end) {
        if (kind.points) {
            tokens.push_back(mixed((BASIS ^ kind.fold[next(p)]) * PRIME));
            continue;
        }
        uint64_t hash = BASIS;
        bool any = false;
        while (p < end && *p != ' ' && !(kind.lines && (*p == '\n' || *p == '\t'))) {
            hash = (hash ^ kind.fold[next(p)]) * PRIME;
            any = true;
        }
        if (any) tokens.push_back(mixed(hash));
        if (p < end) ++p;
    }
    const int64_t count = tokens.size(), size = std::min(kind.window, count);
    uint64_t gone = 1, hash = 0;
    for (int64_t k = 0; k < size; ++k) gone *= RADIX;
    for (int64_t j = 0; j < count; ++j) {
        hash = hash * RADIX + tokens[j];
        if (j >= size) hash -= gone * tokens[j - size];
        if (j >= size - 1) take(mixed(hash));
    }
}

int64_t root(int64_t* parents, int64_t i) {
    while (parents[i] != i) i = parents[i] = parents[parents[i]];
    return i;
}

}  // namespace

extern "C" {

// signature [n, lanes]: the least of a h + b mod 2^32 over the upper halves h of the hashes of all
// shingles, by lane. A text without tokens has all ones.
void minhash(int64_t n, const int64_t* offsets, const uint8_t* data, const uint32_t* fold,
             int64_t points, int64_t lines, int64_t window, int64_t lanes, const uint32_t* a,
             const uint32_t* b, uint32_t* signature) {
    const Kind kind{fold, points != 0, lines != 0, window};
    std::vector<uint64_t> tokens;
    for (int64_t i = 0; i < n; ++i, signature += lanes) {
        std::fill(signature, signature + lanes, 0xffffffffu);
        each_shingle(data + offsets[i], data + offsets[i + 1], kind, tokens, [&](uint64_t hash) {
            const uint32_t h = uint32_t(hash >> 32);
            for (int64_t l = 0; l < lanes; ++l)
                signature[l] = std::min(signature[l], a[l] * h + b[l]);
        });
    }
}

// The distinct shingles of each text in order of their hashes: before [n + 1] counts those of the
// texts before; found must have room for one of every token.
void shingle_sets(int64_t n, const int64_t* offsets, const uint8_t* data, const uint32_t* fold,
                  int64_t points, int64_t lines, int64_t window, int64_t* before,
                  uint64_t* found) {
    const Kind kind{fold, points != 0, lines != 0, window};
    std::vector<uint64_t> tokens;
    before[0] = 0;
    for (int64_t i = 0; i < n; ++i) {
        uint64_t *begin = found + before[i], *end = begin;
        each_shingle(data + offsets[i], data + offsets[i + 1], kind, tokens,
                     [&](uint64_t hash) { *end++ = hash; });
        std::sort(begin, end);
        before[i + 1] = std::unique(begin, end) - found;
    }
}

// shared [pairs] is |A and B| and either [pairs] |A or B| of sets as shingle_sets gives them.
void shared_shingles(int64_t pairs, const int64_t* one, const int64_t* other,
                     const int64_t* before, const uint64_t* sets, int64_t* shared,
                     int64_t* either) {
    for (int64_t k = 0; k < pairs; ++k) {
        const uint64_t *a = sets + before[one[k]], *a_end = sets + before[one[k] + 1];
        const uint64_t *b = sets + before[other[k]], *b_end = sets + before[other[k] + 1];
        int64_t both = 0;
        const int64_t all = (a_end - a) + (b_end - b);
        while (a < a_end && b < b_end) {
            both += *a == *b;
            const bool step = *a <= *b, other_step = *b <= *a;
            a += step;
            b += other_step;
        }
        shared[k] = both;
        either[k] = all - both;
    }
}

// Bit k of found [n] is set where more shingles of a text have bit k than have it not.
void simhash(int64_t n, const int64_t* offsets, const uint8_t* data, const uint32_t* fold,
             int64_t points, int64_t lines, int64_t window, uint64_t* found) {
    const Kind kind{fold, points != 0, lines != 0, window};
    std::vector<uint64_t> tokens;
    for (int64_t i = 0; i < n; ++i) {
        int64_t ones[64] = {0}, count = 0;
        each_shingle(data + offsets[i], data + offsets[i + 1], kind, tokens, [&](uint64_t hash) {
            for (int k = 0; k < 64; ++k) ones[k] += hash >> k & 1;
            ++count;
        });
        found[i] = 0;
        for (int k = 0; k < 64; ++k) found[i] |= uint64_t(2 * ones[k] > count) << k;
    }
}

// found: the hash of every run of `window` words of each text, by bytes; a text with fewer has none.
// Words are [starts, ends) in data, those of a text between word_offsets [n + 1].
void word_windows(int64_t n, const int64_t* word_offsets, const int64_t* starts,
                  const int64_t* ends, const uint8_t* data, int64_t window, uint64_t* found) {
    std::vector<uint64_t> tokens;
    uint64_t gone = 1;
    for (int64_t k = 0; k < window; ++k) gone *= RADIX;
    for (int64_t i = 0; i < n; ++i) {
        tokens.clear();
        for (int64_t w = word_offsets[i]; w < word_offsets[i + 1]; ++w) {
            uint64_t hash = BASIS;
            for (const uint8_t* p = data + starts[w]; p < data + ends[w]; ++p)
                hash = (hash ^ *p) * PRIME;
            tokens.push_back(mixed(hash));
        }
        uint64_t hash = 0;
        const int64_t count = tokens.size();
        for (int64_t j = 0; j < count; ++j) {
            hash = hash * RADIX + tokens[j];
            if (j >= window) hash -= gone * tokens[j - window];
            if (j >= window - 1) *found++ = mixed(hash);
        }
    }
}

// Join the groups of each pair; the least row is the root of its group.
void join_pairs(int64_t pairs, const int64_t* one, const int64_t* other, int64_t* parents) {
    for (int64_t k = 0; k < pairs; ++k) {
        const int64_t a = root(parents, one[k]), b = root(parents, other[k]);
        if (a != b) parents[std::max(a, b)] = std::min(a, b);
    }
}

// Make every row point to its root.
void flatten(int64_t n, int64_t* parents) {
    for (int64_t i = 0; i < n; ++i) parents[i] = root(parents, i);
}

}
