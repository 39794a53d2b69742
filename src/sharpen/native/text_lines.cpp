// Lines and paragraphs of texts, the forms of words, and how much of a text is said twice.
// Twins: sharpen/data/statistics/{lines,grams}.py. A column of texts is UTF-8 `data` with
// `offsets` [n + 1]; lists of lines or words have offsets of their own.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "text.h"

namespace {

// What is known of a piece while its characters go by.
struct Piece {
    int64_t start, body_start = -1, body_end = -1;
    int32_t length = 0;
    uint32_t last = 0;
    uint64_t hash = BASIS;

    void add(uint32_t c, bool space, int64_t at, int64_t after) {
        ++length;
        last = c;
        hash = (hash ^ c) * PRIME;
        if (space) return;
        if (body_start < 0) body_start = at;
        body_end = after;
    }
};

// Where pieces are written, or only counted if `starts` is null.
struct Sink {
    int64_t *starts, *ends, *body_starts, *body_ends;
    int32_t* lengths;
    uint32_t* last;
    uint64_t* hashes;
    int64_t count = 0;

    void add(const Piece& piece, int64_t end) {
        if (starts != nullptr) {
            starts[count] = piece.start;
            ends[count] = end;
            body_starts[count] = piece.body_start < 0 ? end : piece.body_start;
            body_ends[count] = piece.body_start < 0 ? end : piece.body_end;
            lengths[count] = piece.length;
            last[count] = piece.last;
            hashes[count] = mixed(piece.hash);
        }
        ++count;
    }
};

void lines_of(const uint8_t* data, const uint8_t* p, const uint8_t* end, const uint8_t* bits,
              Sink& sink) {
    Piece line{p - data};
    while (p < end) {
        const uint8_t* at = p;
        const uint32_t c = next(p);
        if (!(bits[c] & LINE)) {
            line.add(c, bits[c] & SPACE, at - data, p - data);
            continue;
        }
        sink.add(line, at - data);
        if (c == '\r' && p < end && *p == '\n') ++p;
        line = Piece{p - data};
    }
    if (line.length > 0) sink.add(line, end - data);
}

// What two or more line feeds part, after white space at both ends of the text is gone.
void paragraphs_of(const uint8_t* data, const uint8_t* p, const uint8_t* end, const uint8_t* bits,
                   Sink& sink) {
    const uint8_t *first = end, *after = end;
    for (const uint8_t* q = p; q < end;) {
        const uint8_t* at = q;
        if (bits[next(q)] & SPACE) continue;
        if (first == end) first = at;
        after = q;
    }
    Piece part{first - data};
    for (p = first; p < after;) {
        const uint8_t* at = p;
        const uint32_t c = next(p);
        if (c == '\n' && *p == '\n') {  // the text ends in what is no white space
            while (*p == '\n') ++p;
            sink.add(part, at - data);
            part = Piece{p - data};
        } else {
            part.add(c, bits[c] & SPACE, at - data, p - data);
        }
    }
    if (part.length > 0) sink.add(part, after - data);
}

}  // namespace

extern "C" {

// Lines as str.splitlines parts them, or paragraphs: of each its bytes from `starts` to `ends` in
// `data`, the same without white space at either end, its code points, the last of them (0 if there
// is none) and a hash. piece_offsets [n + 1] are the pieces before each text. With starts = null
// only they are made.
void text_lines(int64_t n, const int64_t* offsets, const uint8_t* data, const uint8_t* bits,
                int64_t paragraphs, int64_t* piece_offsets, int64_t* starts, int64_t* ends,
                int64_t* body_starts, int64_t* body_ends, int32_t* lengths, uint32_t* last,
                uint64_t* hashes) {
    Sink sink{starts, ends, body_starts, body_ends, lengths, last, hashes};
    piece_offsets[0] = 0;
    for (int64_t i = 0; i < n; ++i) {
        const uint8_t *p = data + offsets[i], *end = data + offsets[i + 1];
        if (paragraphs)
            paragraphs_of(data, p, end, bits, sink);
        else
            lines_of(data, p, end, bits, sink);
        piece_offsets[i + 1] = sink.count;
    }
}

// Of words from `starts` to `ends`: a hash as they stand, and all kinds that their characters have.
void word_forms(int64_t words, const int64_t* starts, const int64_t* ends, const uint8_t* data,
                const uint8_t* bits, uint64_t* hashes, uint8_t* kinds) {
    for (int64_t w = 0; w < words; ++w) {
        const uint8_t *p = data + starts[w], *end = data + ends[w];
        uint64_t hash = BASIS;
        uint8_t kind = 0;
        while (p < end) {
            const uint32_t c = next(p);
            hash = (hash ^ c) * PRIME;
            kind |= bits[c];
        }
        hashes[w] = mixed(hash);
        kinds[w] = kind;
    }
}

// Of the pieces of each text that occurred before in it: how many, and their code points.
void repeated_pieces(int64_t n, const int64_t* piece_offsets, const uint64_t* hashes,
                     const int32_t* lengths, int64_t* count, int64_t* points) {
    Counter counter;
    for (int64_t i = 0; i < n; ++i) {
        count[i] = points[i] = 0;
        counter.start(piece_offsets[i + 1] - piece_offsets[i]);
        for (int64_t k = piece_offsets[i]; k < piece_offsets[i + 1]; ++k) {
            if (counter.add(hashes[k]) == 1) continue;
            ++count[i];
            points[i] += lengths[k];
        }
    }
}

// Code points of all occurrences of the most frequent n-gram of `size` words joined by spaces; of
// equally frequent ones the first. 0 where there is no n-gram.
void top_gram(int64_t n, const int64_t* word_offsets, const uint64_t* hashes,
              const int32_t* lengths, int64_t size, int64_t* points) {
    Counter counter;
    std::vector<uint64_t> keys;
    uint64_t gone = 1;  // RADIX^size
    for (int64_t k = 0; k < size; ++k) gone *= RADIX;
    for (int64_t i = 0; i < n; ++i) {
        const uint64_t* words = hashes + word_offsets[i];
        const int64_t count = word_offsets[i + 1] - word_offsets[i], grams = count - size + 1;
        points[i] = 0;
        if (grams <= 0) continue;
        counter.start(grams);
        keys.resize(grams);
        uint64_t hash = 0;
        uint32_t most = 0;
        for (int64_t j = 0; j < count; ++j) {
            hash = hash * RADIX + words[j];
            if (j >= size) hash -= gone * words[j - size];
            if (j < size - 1) continue;
            keys[j - size + 1] = hash;
            most = std::max(most, counter.add(hash));
        }
        int64_t first = 0;
        while (counter.count(keys[first]) != most) ++first;
        int64_t length = size - 1;
        for (int64_t k = 0; k < size; ++k) length += lengths[word_offsets[i] + first + k];
        points[i] = length * most;
    }
}

// points [n, high - low + 1]: code points of the n-grams of low to high words that occurred before,
// spaces not counted; n-grams that repeat do not overlap, and those over them are not remembered.
void repeated_grams(int64_t n, const int64_t* word_offsets, const uint64_t* hashes,
                    const int32_t* lengths, int64_t low, int64_t high, int64_t* points) {
    Counter counter;
    std::vector<uint64_t> before;  // of the first j words
    std::vector<int64_t> length;
    const int64_t sizes = high - low + 1;
    for (int64_t i = 0; i < n; ++i, points += sizes) {
        const int64_t count = word_offsets[i + 1] - word_offsets[i];
        std::fill(points, points + sizes, 0);
        before.assign(count + 1, 0);
        length.assign(count + 1, 0);
        for (int64_t j = 0; j < count; ++j) {
            before[j + 1] = before[j] * RADIX + hashes[word_offsets[i] + j];
            length[j + 1] = length[j] + lengths[word_offsets[i] + j];
        }
        uint64_t gone = 1;
        for (int64_t k = 1; k < low; ++k) gone *= RADIX;
        for (int64_t size = low; size <= high && size <= count; ++size) {
            gone *= RADIX;
            counter.start(count - size + 1);
            for (int64_t j = 0; j + size <= count;) {
                if (counter.add(before[j + size] - gone * before[j]) > 1) {
                    points[size - low] += length[j + size] - length[j];
                    j += size;
                } else {
                    ++j;
                }
            }
            if (points[size - low] == 0) break;  // no longer n-gram can occur twice
        }
    }
}

// The bytes of all pieces from `starts` to `ends` in `data`, one after the other.
void copy_pieces(int64_t pieces, const int64_t* starts, const int64_t* ends, const uint8_t* data,
                 uint8_t* out) {
    for (int64_t k = 0; k < pieces; ++k) {
        const int64_t size = ends[k] - starts[k];
        std::memcpy(out, data + starts[k], size);
        out += size;
    }
}

}
