// Texts as sparse vectors of hashed n-grams of words, products with them, and hashed n-grams of
// letters. Twins: sharpen/data/quality/features.py, sharpen/data/language/letters.py.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

constexpr uint64_t RADIX = 0x9e3779b97f4a7c15ull;

inline uint64_t mixed(uint64_t x) {  // the finalizer of SplitMix64
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

enum : uint8_t { ALPHA = 2 };  // of the bits of sharpen/data/statistics/characters.py

inline uint32_t next(const uint8_t*& p) {  // the code point at p, which moves on
    const uint32_t first = *p++;
    if (first < 0x80) return first;
    const int more = first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    uint32_t c = first & (0x3f >> more);
    for (int k = 0; k < more; ++k) c = c << 6 | (*p++ & 0x3f);
    return c;
}

// The letters of a text in lower case; whatever lies between two of them is one 0, and a 0 stands
// before the first and after the last.
void letters_of(const uint8_t* p, const uint8_t* end, const uint8_t* bits, const uint32_t* lower,
                std::vector<uint32_t>& letters) {
    letters.assign(1, 0);
    while (p < end) {
        const uint32_t c = next(p);
        if (bits[c] & ALPHA)
            letters.push_back(lower[c]);
        else if (letters.back() != 0)
            letters.push_back(0);
    }
    if (letters.back() != 0) letters.push_back(0);
}

// `visit(bucket)` for each n-gram of 1 .. order letters that has not 0 alone or 0 inside.
template <class Visit>
void letter_ngrams(const std::vector<uint32_t>& letters, int64_t order, int64_t bits, Visit visit) {
    const int64_t count = int64_t(letters.size());
    for (int64_t j = 0; j < count; ++j) {
        uint64_t hash = 0;
        for (int64_t k = j; k < std::min(count, j + order); ++k) {
            hash = hash * RADIX + letters[k] + 1;
            if (k == j && letters[k] == 0) continue;
            visit(uint32_t(mixed(hash) >> (64 - bits)));
            if (letters[k] == 0) break;
        }
    }
}

}  // namespace

extern "C" {

// Rows of 1 + log(count) of the n-grams of 1 .. order words by bucket, of length 1; words are the
// hashes [word_offsets[n]] that are not 0. starts [n + 1]; buckets and values hold order times as
// many as there are words.
void hashed_words(int64_t n, const int64_t* word_offsets, const uint64_t* words, int64_t order,
                  int64_t bits, int64_t* starts, uint32_t* buckets, float* values) {
    std::vector<uint64_t> kept;
    int64_t made = 0;
    starts[0] = 0;
    for (int64_t i = 0; i < n; ++i) {
        kept.clear();
        for (int64_t w = word_offsets[i]; w < word_offsets[i + 1]; ++w)
            if (words[w] != 0) kept.push_back(words[w]);
        const int64_t begin = made, count = int64_t(kept.size());
        for (int64_t j = 0; j < count; ++j) {
            uint64_t hash = 0;
            for (int64_t k = j; k < std::min(count, j + order); ++k) {
                hash = hash * RADIX + kept[k];
                buckets[made++] = uint32_t(mixed(hash) >> (64 - bits));
            }
        }
        std::sort(buckets + begin, buckets + made);
        int64_t last = begin - 1, end = made;
        double squares = 0.0;
        for (int64_t k = begin; k < end;) {
            const int64_t first = k;
            const uint32_t bucket = buckets[first];
            while (k < end && buckets[k] == bucket) ++k;
            const double value = 1.0 + std::log(double(k - first));
            buckets[++last] = bucket;
            values[last] = float(value);
            squares += value * value;
        }
        made = last + 1;
        const float scale = squares > 0.0 ? float(1.0 / std::sqrt(squares)) : 0.0f;
        for (int64_t k = begin; k < made; ++k) values[k] *= scale;
        starts[i + 1] = made;
    }
}

// out [n]: rows times weights.
void sparse_times(int64_t n, const int64_t* starts, const uint32_t* buckets, const float* values,
                  const double* weights, double* out) {
    for (int64_t i = 0; i < n; ++i) {
        double sum = 0.0;
        for (int64_t k = starts[i]; k < starts[i + 1]; ++k)
            sum += double(values[k]) * weights[buckets[k]];
        out[i] = sum;
    }
}

// out [2^bits] is added the sum of the rows, each times its factor.
void sparse_sum(int64_t n, const int64_t* starts, const uint32_t* buckets, const float* values,
                const double* factors, double* out) {
    for (int64_t i = 0; i < n; ++i)
        for (int64_t k = starts[i]; k < starts[i + 1]; ++k)
            out[buckets[k]] += double(values[k]) * factors[i];
}

// counts [2^bits] is added how often each bucket of n-grams of letters occurs in n texts.
void letter_counts(int64_t n, const int64_t* offsets, const uint8_t* data, const uint8_t* bits,
                   const uint32_t* lower, int64_t order, int64_t size, int64_t* counts) {
    std::vector<uint32_t> letters;
    for (int64_t i = 0; i < n; ++i) {
        letters_of(data + offsets[i], data + offsets[i + 1], bits, lower, letters);
        letter_ngrams(letters, order, size, [&](uint32_t bucket) { ++counts[bucket]; });
    }
}

// sums [n, classes]: of each text, the sum over its n-grams of the rows of table [2^size, classes].
void letter_scores(int64_t n, const int64_t* offsets, const uint8_t* data, const uint8_t* bits,
                   const uint32_t* lower, int64_t order, int64_t size, int64_t classes,
                   const float* table, double* sums) {
    std::vector<uint32_t> letters;
    std::vector<double> sum(classes);
    for (int64_t i = 0; i < n; ++i) {
        std::fill(sum.begin(), sum.end(), 0.0);
        letters_of(data + offsets[i], data + offsets[i + 1], bits, lower, letters);
        letter_ngrams(letters, order, size, [&](uint32_t bucket) {
            const float* row = table + int64_t(bucket) * classes;
            for (int64_t c = 0; c < classes; ++c) sum[c] += row[c];
        });
        std::copy(sum.begin(), sum.end(), sums + i * classes);
    }
}

}
