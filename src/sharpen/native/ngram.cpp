// Language models of n-grams: words to ids, counts by sorting, tables of n-grams, scores of texts.
// Twins: sharpen/data/ngram/*.py.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace {

enum : uint8_t { SPACE = 8, LINE = 64 };  // bits of sharpen/data/statistics/characters.py

constexpr uint64_t BASIS = 0xcbf29ce484222325ull, PRIME = 0x100000001b3ull;
constexpr uint64_t EMPTY = ~0ull;
constexpr uint32_t NONE = ~0u, UNKNOWN = 0, BEGIN = 1, END = 2;
constexpr uint32_t NEW = 1u << 31;  // beside the id of the end of a sentence
constexpr size_t kAhead = 6;        // words that are fetched before they are read
constexpr int kMostOrder = 8;

inline uint64_t mixed(uint64_t x) {  // the finalizer of SplitMix64
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

inline uint64_t hash_bytes(const uint8_t* p, const uint8_t* end) {
    uint64_t h = BASIS;
    for (; p < end; ++p) h = (h ^ *p) * PRIME;
    return mixed(h);
}

inline uint64_t place_of(uint64_t hash, uint64_t places) { return (hash >> 32) * places >> 32; }

inline uint32_t next(const uint8_t*& p) {  // the code point at p, which moves on
    const uint32_t first = *p++;
    if (first < 0x80) return first;
    const int more = first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    uint32_t c = first & (0x3f >> more);
    for (int k = 0; k < more; ++k) c = c << 6 | (*p++ & 0x3f);
    return c;
}

// Words of a text are parted by spaces, tabs, line feeds and the other line ends of
// str.splitlines; those others end a sentence, and line feeds do with `lines`. `word(begin, end)`
// is called for each, `sentence(parts)` at each end, with the number of words as str.split says.
// Returns that of the last sentence, which nothing ended.
template <class Word, class Sentence>
int64_t read_text(const uint8_t* p, const uint8_t* end, const uint8_t* bits, bool lines, Word word,
               Sentence sentence) {
    const uint8_t* begin = nullptr;
    int64_t parts = 0;
    bool apart = true;
    while (p < end) {
        const uint8_t* here = p;
        const uint32_t c = next(p);
        const bool is_feed = c == '\n', ends = (bits[c] & LINE) && (!is_feed || lines);
        if (ends || is_feed || c == ' ' || c == '\t') {
            if (begin) word(begin, here);
            begin = nullptr;
            apart = true;
            if (ends) {
                sentence(parts);
                parts = 0;
            }
            continue;
        }
        if (!begin) begin = here;
        const bool space = bits[c] & SPACE;
        parts += !space && apart;
        apart = space;
    }
    if (begin) word(begin, end);
    return parts;
}

struct Place {
    uint64_t hash;
    uint32_t id, unused;
};

struct Slot {
    uint64_t key;  // of the words before it << 32 | the last word
    float probability, backoff;
};

class Vocabulary {
public:
    Vocabulary() : places_(1 << 16, Place{0, NONE, 0}), offsets_{0} {
        for (const char* name : {"<unk>", "<s>", "</s>"}) {
            const auto* p = reinterpret_cast<const uint8_t*>(name);
            id(p, p + std::strlen(name));
        }
    }
    uint32_t id(const uint8_t* p, const uint8_t* end) {
        const uint64_t hash = hash_bytes(p, end);
        const size_t size = end - p;
        uint64_t i = place_of(hash, places_.size());
        for (;; i = i + 1 == places_.size() ? 0 : i + 1) {
            const Place& at = places_[i];
            if (at.id == NONE) break;
            if (at.hash == hash && offsets_[at.id + 1] - offsets_[at.id] == size &&
                std::memcmp(&bytes_[offsets_[at.id]], p, size) == 0)
                return at.id;
        }
        const uint32_t made = uint32_t(offsets_.size() - 1);
        places_[i] = {hash, made, 0};
        bytes_.insert(bytes_.end(), p, end);
        offsets_.push_back(bytes_.size());
        if (offsets_.size() * 2 > places_.size()) grow();
        return made;
    }
    const std::vector<uint64_t>& offsets() const { return offsets_; }
    const std::vector<uint8_t>& bytes() const { return bytes_; }

private:
    void grow() {
        std::vector<Place> old(places_.size() * 2, Place{0, NONE, 0});
        old.swap(places_);
        for (const Place& one : old) {
            if (one.id == NONE) continue;
            uint64_t i = place_of(one.hash, places_.size());
            while (places_[i].id != NONE) i = i + 1 == places_.size() ? 0 : i + 1;
            places_[i] = one;
        }
    }
    std::vector<Place> places_;
    std::vector<uint64_t> offsets_;
    std::vector<uint8_t> bytes_;
};

inline int64_t find(const Slot* table, uint64_t places, uint64_t key) {
    uint64_t i = place_of(mixed(key), places);
    for (uint64_t seen = 0; seen < places; ++seen, i = i + 1 == places ? 0 : i + 1) {
        if (table[i].key == key) return int64_t(i);
        if (table[i].key == EMPTY) return -1;
    }
    return -1;  // a damaged table, without an empty slot
}

struct Model {
    int64_t order, words;
    const float* unigrams;  // [words, 2]
    const int64_t* places;  // [order + 1], from 2
    const Slot* const* tables;
    bool closed;  // the suffix of each n-gram is one, too

    // Ask memory for what two words in a row will need.
    void fetch(uint32_t before, uint32_t word) const {
        before = before & NEW ? BEGIN : before;
        word &= ~NEW;
        __builtin_prefetch(&unigrams[2 * int64_t(word)]);
        if (order < 2) return;
        const uint64_t key = uint64_t(before) << 32 | word;
        __builtin_prefetch(&tables[2][place_of(mixed(key), places[2])]);
    }

    float backoff(int64_t j, uint32_t node) const {
        return j == 1 ? unigrams[2 * int64_t(node) + 1] : tables[j][node].backoff;
    }
};

// What has been read of a sentence: the n-grams of 1 .. order - 1 words that end here.
class State {
public:
    explicit State(const Model& model) : model_(model) {}
    void begin(bool of_sentence) {
        length_ = 0;
        if (of_sentence && model_.order > 1) {
            nodes_[1] = BEGIN;
            length_ = 1;
        }
    }
    // log10 of the probability of a word after what was read; the word is read then.
    double read(uint32_t word) {
        const Model& m = model_;
        uint32_t made[kMostOrder + 1];
        for (int64_t j = 1; j <= length_; ++j)
            if (nodes_[j] != NONE) {
                const uint64_t key = uint64_t(nodes_[j]) << 32 | word;
                __builtin_prefetch(&m.tables[j + 1][place_of(mixed(key), m.places[j + 1])]);
            }
        double found = m.unigrams[2 * int64_t(word)];
        int64_t matched = 0, longest = 1;
        made[1] = word;
        for (int64_t j = 1; j <= length_; ++j) {
            made[j + 1] = NONE;
            if (nodes_[j] == NONE) continue;
            const int64_t slot =
                find(m.tables[j + 1], m.places[j + 1], uint64_t(nodes_[j]) << 32 | word);
            if (slot >= 0) {
                found = m.tables[j + 1][slot].probability;
                matched = j;
                made[j + 1] = uint32_t(slot);
                longest = j + 1;
            } else if (m.closed) {
                break;
            }
        }
        for (int64_t j = matched + 1; j <= length_; ++j)
            if (nodes_[j] != NONE) found += m.backoff(j, nodes_[j]);
        length_ = std::min(longest, m.order - 1);
        std::copy(made + 1, made + 1 + length_, nodes_ + 1);
        return found;
    }

private:
    const Model& model_;
    uint32_t nodes_[kMostOrder + 1];
    int64_t length_ = 0;
};

}  // namespace

extern "C" {

void* ngram_vocabulary() { return new Vocabulary; }

void ngram_free(void* vocabulary) { delete static_cast<Vocabulary*>(vocabulary); }

// Sizes of a vocabulary: words, bytes of them all.
void ngram_sizes(void* vocabulary, int64_t* sizes) {
    const auto& v = *static_cast<Vocabulary*>(vocabulary);
    sizes[0] = int64_t(v.offsets().size()) - 1;
    sizes[1] = int64_t(v.bytes().size());
}

void ngram_words(void* vocabulary, uint64_t* offsets, uint8_t* bytes) {
    const auto& v = *static_cast<Vocabulary*>(vocabulary);
    std::copy(v.offsets().begin(), v.offsets().end(), offsets);
    std::copy(v.bytes().begin(), v.bytes().end(), bytes);
}

// Sentences of n texts as ids, each from <s> to </s>, without empty ones; returns how many ids.
// tokens holds (3 bytes + 3 n) / 2 of them. Words that read <unk>, <s> or </s> are left out.
int64_t ngram_tokens(void* vocabulary, int64_t n, const int64_t* offsets, const uint8_t* data,
                     const uint8_t* bits, int64_t lines, uint32_t* tokens) {
    auto& v = *static_cast<Vocabulary*>(vocabulary);
    int64_t count = 0, begun = -1;
    const auto word = [&](const uint8_t* p, const uint8_t* end) {
        const uint32_t id = v.id(p, end);
        if (id <= END) return;
        if (begun < 0) {
            begun = count;
            tokens[count++] = BEGIN;
        }
        tokens[count++] = id;
    };
    const auto sentence = [&](int64_t) {
        if (begun >= 0) tokens[count++] = END;
        begun = -1;
    };
    for (int64_t i = 0; i < n; ++i) {
        read_text(data + offsets[i], data + offsets[i + 1], bits, lines, word, sentence);
        sentence(0);
    }
    return count;
}

// n-grams grouped by all words but the last: `previous` [T] is the (n-1)-gram that ends at each
// token, NONE where a sentence began too late. pairs [T] become word << 32 | place, sorted within
// groups that begin at starts [contexts + 1]. Returns how many n-grams are distinct.
int64_t ngram_group(int64_t T, const uint32_t* tokens, const uint32_t* previous, int64_t contexts,
                    int64_t* starts, uint64_t* pairs) {
    std::fill(starts, starts + contexts + 1, 0);
    for (int64_t t = 1; t < T; ++t)
        if (tokens[t] != BEGIN && previous[t - 1] != NONE) ++starts[previous[t - 1] + 1];
    for (int64_t c = 0; c < contexts; ++c) starts[c + 1] += starts[c];
    for (int64_t t = 1; t < T; ++t)
        if (tokens[t] != BEGIN && previous[t - 1] != NONE)
            pairs[starts[previous[t - 1]]++] = uint64_t(tokens[t]) << 32 | uint64_t(t);
    for (int64_t c = contexts; c > 0; --c) starts[c] = starts[c - 1];
    starts[0] = 0;
    int64_t distinct = 0;
    for (int64_t c = 0; c < contexts; ++c) {
        std::sort(pairs + starts[c], pairs + starts[c + 1]);
        for (int64_t i = starts[c]; i < starts[c + 1]; ++i)
            distinct += i == starts[c] || pairs[i] >> 32 != pairs[i - 1] >> 32;
    }
    return distinct;
}

// The distinct n-grams in order of context and word: their context, word, count, the (n-1)-gram of
// all words but the first, and whether they begin with <s>; and node [T], which ends where.
void ngram_count(int64_t T, int64_t order, const uint32_t* tokens, const uint32_t* previous,
                 int64_t contexts, const int64_t* starts, const uint64_t* pairs, uint32_t* context,
                 uint32_t* word, uint32_t* count, uint32_t* suffix, uint8_t* begins,
                 uint32_t* node) {
    std::fill(node, node + T, NONE);
    int64_t made = -1;
    for (int64_t c = 0; c < contexts; ++c)
        for (int64_t i = starts[c]; i < starts[c + 1]; ++i) {
            const int64_t t = int64_t(pairs[i] & NONE);
            if (i == starts[c] || pairs[i] >> 32 != pairs[i - 1] >> 32) {
                ++made;
                context[made] = uint32_t(c);
                word[made] = uint32_t(pairs[i] >> 32);
                count[made] = 0;
                suffix[made] = previous[t];
                begins[made] = tokens[t - order + 1] == BEGIN;
            }
            ++count[made];
            node[t] = uint32_t(made);
        }
}

// Put n n-grams with distinct keys into a table of empty slots; slots [n] says where they lie.
void ngram_insert(int64_t n, const uint64_t* keys, const float* values, int64_t places, void* table,
                  uint32_t* slots) {
    Slot* t = static_cast<Slot*>(table);
    for (int64_t k = 0; k < n; ++k) {
        uint64_t i = place_of(mixed(keys[k]), places);
        while (t[i].key != EMPTY) i = i + 1 == uint64_t(places) ? 0 : i + 1;
        t[i] = {keys[k], values[2 * k], values[2 * k + 1]};
        slots[k] = uint32_t(i);
    }
}

// Where n keys lie in a table; NONE for those that do not.
void ngram_find(int64_t n, const uint64_t* keys, int64_t places, const void* table,
                uint32_t* slots) {
    for (int64_t k = 0; k < n; ++k) {
        const int64_t found = find(static_cast<const Slot*>(table), places, keys[k]);
        slots[k] = found < 0 ? NONE : uint32_t(found);
    }
}

// The table of the words of a vocabulary: places [size] with id NONE at first.
void ngram_index(int64_t words, const uint64_t* offsets, const uint8_t* bytes, int64_t size,
                 void* places) {
    Place* p = static_cast<Place*>(places);
    for (int64_t w = 0; w < words; ++w) {
        const uint64_t hash = hash_bytes(bytes + offsets[w], bytes + offsets[w + 1]);
        uint64_t i = place_of(hash, size);
        while (p[i].id != NONE) i = i + 1 == uint64_t(size) ? 0 : i + 1;
        p[i] = {hash, uint32_t(w), 0};
    }
}

// log10 of the probability of each of n words, by their ids.
void ngram_score(int64_t order, int64_t words, const float* unigrams, const int64_t* places,
                 const void* const* tables, int64_t closed, int64_t n, const uint32_t* ids,
                 int64_t begin, double* scores) {
    const Model model{order, words, unigrams, places,
                      reinterpret_cast<const Slot* const*>(tables), closed != 0};
    State state(model);
    state.begin(begin);
    for (int64_t i = 0; i < n; ++i) scores[i] = state.read(ids[i]);
}

// Of n texts: log10 of the probability of all sentences with their ends, and how many words (as
// str.split says) and ends they have. Words are known by their hashes alone.
void ngram_texts(int64_t order, int64_t words, const float* unigrams, const int64_t* places,
                 const void* const* tables, int64_t closed, int64_t index_size, const void* index,
                 int64_t n, const int64_t* offsets, const uint8_t* data, const uint8_t* bits,
                 double* scores, int64_t* lengths) {
    const Model model{order, words, unigrams, places,
                      reinterpret_cast<const Slot* const*>(tables), closed != 0};
    const Place* known = static_cast<const Place*>(index);
    State state(model);
    std::vector<uint32_t> ids;  // of a text's sentences, each with its end
    for (int64_t i = 0; i < n; ++i) {
        ids.clear();
        int64_t length = 0;
        const auto word = [&](const uint8_t* p, const uint8_t* end) {
            const uint64_t hash = hash_bytes(p, end);
            uint64_t k = place_of(hash, index_size);
            while (known[k].id != NONE && known[k].hash != hash)
                k = k + 1 == uint64_t(index_size) ? 0 : k + 1;
            ids.push_back(known[k].id == NONE ? UNKNOWN : known[k].id);
        };
        const auto sentence = [&](int64_t parts) {
            ids.push_back(END | NEW);
            length += parts + 1;
        };
        const int64_t last =
            read_text(data + offsets[i], data + offsets[i + 1], bits, false, word, sentence);
        if (!ids.empty() && !(ids.back() & NEW)) sentence(last);
        double score = 0.0;
        state.begin(true);
        for (size_t k = 0; k < ids.size(); ++k) {
            if (k + kAhead < ids.size()) model.fetch(ids[k + kAhead - 1], ids[k + kAhead]);
            score += state.read(ids[k] & ~NEW);
            if (ids[k] & NEW) state.begin(true);
        }
        scores[i] = score;
        lengths[i] = length;
    }
}

// Lines of an ARPA file for n n-grams of `order` words: their ids [n, order] and values [n, 2], of
// which a backoff of 0 is left out. Returns the bytes of text, which must have room for 40 and the
// words, with a space each, of every n-gram.
int64_t ngram_lines(int64_t n, int64_t order, const uint32_t* ids, const float* values,
                    const uint64_t* offsets, const uint8_t* bytes, char* text) {
    char* p = text;
    for (int64_t i = 0; i < n; ++i) {
        p += std::snprintf(p, 20, "%.9g\t", double(values[2 * i]));
        for (int64_t k = 0; k < order; ++k) {
            const uint32_t id = ids[i * order + k];
            const uint64_t size = offsets[id + 1] - offsets[id];
            if (k) *p++ = ' ';
            std::memcpy(p, bytes + offsets[id], size);
            p += size;
        }
        if (values[2 * i + 1] != 0.0f)
            p += std::snprintf(p, 20, "\t%.9g", double(values[2 * i + 1]));
        *p++ = '\n';
    }
    return p - text;
}

}
