// What operators on texts share: counts of characters, lines, words, n-grams that repeat.
// Twins: sharpen/data/statistics/*.py. A column of texts is UTF-8 `data` with `offsets` [n + 1].

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "text.h"

extern "C" {

// out [n, 9]: code points, then those that are alphanumeric, alphabetic, digits, white space, upper
// case and special, lines as str.splitlines counts them, and code points of the longest line.
void text_counts(int64_t n, const int64_t* offsets, const uint8_t* data, const uint8_t* bits,
                 int64_t* out) {
    for (int64_t i = 0; i < n; ++i, out += 9) {
        const uint8_t *p = data + offsets[i], *end = data + offsets[i + 1];
        int64_t seen[128] = {0};
        int64_t length = 0, lines = 0, longest = 0, line = 0;
        bool after_return = false;
        while (p < end) {
            const uint32_t c = next(p);
            const uint8_t b = bits[c];
            ++seen[b];
            ++length;
            if (!(b & LINE)) {
                ++line;
                after_return = false;
            } else if (c == '\n' && after_return) {
                after_return = false;  // of the line that the return before ended
            } else {
                longest = std::max(longest, line);
                ++lines;
                line = 0;
                after_return = c == '\r';
            }
        }
        if (line > 0) {
            longest = std::max(longest, line);
            ++lines;
        }
        int64_t of[6] = {0};
        for (int b = 0; b < 128; ++b)
            for (int k = 0; k < 6; ++k)
                if (b >> k & 1) of[k] += seen[b];
        out[0] = length;
        std::copy(of, of + 6, out + 1);
        out[7] = lines;
        out[8] = longest;
    }
}

// Words: what spaces, line feeds and tabs part. Of each its bytes from `starts` to `ends` (in
// `data`), its code points, and the hash of it in lower case without special characters at either
// end: 0 if nothing is left, 1 if its lower case is more than a table tells. word_offsets [n + 1]
// are the words before each text. The arrays hold (bytes + n) / 2 words. Returns words with hash 1.
int64_t text_words(int64_t n, const int64_t* offsets, const uint8_t* data, const uint8_t* bits,
                   const uint32_t* lower, int64_t* word_offsets, int64_t* starts, int64_t* ends,
                   int32_t* lengths, uint64_t* refined) {
    int64_t count = 0, odd = 0;
    word_offsets[0] = 0;
    for (int64_t i = 0; i < n; ++i) {
        const uint8_t *p = data + offsets[i], *end = data + offsets[i + 1];
        while (true) {
            while (p < end && (*p == ' ' || *p == '\n' || *p == '\t')) ++p;
            if (p == end) break;
            starts[count] = p - data;
            // The hash of what ends at the last character that is not special is the word's.
            uint64_t hash = BASIS, kept = 0;
            int32_t length = 0;
            bool begun = false, strange = false, odd_word = false;
            while (p < end && *p != ' ' && *p != '\n' && *p != '\t') {
                const uint32_t c = next(p);
                ++length;
                const bool special = bits[c] & SPECIAL;
                begun |= !special;
                if (!begun) continue;
                strange |= c == 0x130 || c == 0x3a3;
                hash = (hash ^ lower[c]) * PRIME;
                if (!special) {
                    kept = hash;
                    odd_word |= strange;
                }
            }
            ends[count] = p - data;
            lengths[count] = length;
            uint64_t h = 0;
            if (begun) {
                h = mixed(kept);
                if (h < 2) h += 2;
                if (odd_word) {
                    h = 1;
                    ++odd;
                }
            }
            refined[count++] = h;
        }
        word_offsets[i + 1] = count;
    }
    return odd;
}

// ratio [n] of the n-grams of `size` code points that are among the most frequent: with D distinct
// ones of which U occur once, the first min(floor(sqrt(D)), D - U).
void character_repetition(int64_t n, const int64_t* offsets, const uint8_t* data, int64_t size,
                          double* ratio) {
    Counter counter;
    std::vector<uint32_t> points, repeated;
    uint64_t gone = 1;  // RADIX^size
    for (int64_t k = 0; k < size; ++k) gone *= RADIX;
    for (int64_t i = 0; i < n; ++i) {
        points.clear();
        const uint8_t *p = data + offsets[i], *end = data + offsets[i + 1];
        while (p < end) points.push_back(next(p));
        const int64_t length = points.size(), grams = length - size + 1;
        ratio[i] = 0.0;
        if (grams <= 0) continue;
        counter.start(grams);
        uint64_t hash = 0;
        for (int64_t j = 0; j < length; ++j) {
            hash = hash * RADIX + (points[j] + 1);
            if (j >= size) hash -= gone * (points[j - size] + 1);
            if (j >= size - 1) counter.add(hash);
        }
        int64_t distinct = 0;
        repeated.clear();
        for (const uint32_t c : counter.counts()) {
            distinct += c > 0;
            if (c > 1) repeated.push_back(c);
        }
        int64_t most = int64_t(std::sqrt(double(distinct)));
        most = std::min<int64_t>(most, repeated.size());
        std::nth_element(repeated.begin(), repeated.begin() + most, repeated.end(),
                         [](uint32_t a, uint32_t b) { return a > b; });
        int64_t sum = 0;
        for (int64_t k = 0; k < most; ++k) sum += repeated[k];
        ratio[i] = double(sum) / double(grams);
    }
}

// ratio [n] of the n-grams of `size` words that occur more than once, every time counted; words are
// the hashes [word_offsets[n]] that are not 0.
void word_repetition(int64_t n, const int64_t* word_offsets, const uint64_t* words, int64_t size,
                     double* ratio) {
    Counter counter;
    std::vector<uint64_t> kept;
    uint64_t gone = 1;
    for (int64_t k = 0; k < size; ++k) gone *= RADIX;
    for (int64_t i = 0; i < n; ++i) {
        kept.clear();
        for (int64_t w = word_offsets[i]; w < word_offsets[i + 1]; ++w)
            if (words[w] != 0) kept.push_back(words[w]);
        const int64_t length = kept.size(), grams = length - size + 1;
        ratio[i] = 0.0;
        if (grams <= 0) continue;
        counter.start(grams);
        uint64_t hash = 0;
        int64_t repeated = 0;
        for (int64_t j = 0; j < length; ++j) {
            hash = hash * RADIX + kept[j];
            if (j >= size) hash -= gone * kept[j - size];
            if (j < size - 1) continue;
            const uint32_t times = counter.add(hash);
            repeated += times == 2 ? 2 : times > 2;
        }
        ratio[i] = double(repeated) / double(grams);
    }
}

// found [n]: how many words of each text are in `list` [m]; kept [n]: how many are not 0.
void words_in_list(int64_t n, const int64_t* word_offsets, const uint64_t* words, int64_t m,
                   const uint64_t* list, int64_t* found, int64_t* kept) {
    Counter known;
    known.start(m);
    for (int64_t k = 0; k < m; ++k) known.add(list[k]);
    for (int64_t i = 0; i < n; ++i) {
        found[i] = kept[i] = 0;
        for (int64_t w = word_offsets[i]; w < word_offsets[i + 1]; ++w) {
            if (words[w] == 0) continue;
            ++kept[i];
            found[i] += known.has(words[w]);
        }
    }
}

}
