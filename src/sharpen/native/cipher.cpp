// Word vectors of codes: what stands around each word, counted, weighted and summed as codes.
// Twin: sharpen/data/bitcipher/contexts.py.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

constexpr uint32_t NONE = ~0u;  // a place that no word of the vocabulary takes
constexpr uint32_t kLogs = 4096;  // logs of counts that are made once
enum Weight : int64_t { LOG = 1, PPMI = 2 };  // 0: the count

}  // namespace

extern "C" {

// totals [2 window, 2, V]: for each offset (-window .. -1, 1 .. window), how often each word has
// another there, and how often each is that other.
void cipher_totals(int64_t T, const uint32_t* tokens, int64_t V, int64_t window, int64_t* totals) {
    for (int64_t o = 1; o <= window; ++o) {
        int64_t* left = totals + (window - o) * 2 * V;       // offset -o
        int64_t* right = totals + (window + o - 1) * 2 * V;  // offset +o
        for (int64_t i = 0; i + o < T; ++i) {
            const uint32_t a = tokens[i], b = tokens[i + o];
            if (a == NONE || b == NONE) continue;
            ++right[a];
            ++right[V + b];
            ++left[b];
            ++left[V + a];
        }
    }
}

// Where each word stands: places by word, from starts [V + 1].
void cipher_places(int64_t T, const uint32_t* tokens, int64_t V, int64_t* starts,
                   uint32_t* places) {
    std::fill(starts, starts + V + 1, 0);
    for (int64_t i = 0; i < T; ++i)
        if (tokens[i] != NONE) ++starts[tokens[i] + 1];
    for (int64_t w = 0; w < V; ++w) starts[w + 1] += starts[w];
    for (int64_t i = 0; i < T; ++i)
        if (tokens[i] != NONE) places[starts[tokens[i]]++] = uint32_t(i);
    for (int64_t w = V; w > 0; --w) starts[w] = starts[w - 1];
    starts[0] = 0;
}

// vectors [V, blocks x bits], blocks = 1 or (apart) 2 window: for each word, over the words t that
// stand at the offsets, g(count) (base[t] + scale[t] code[t]). The codes' active bits are
// active[first[t] .. first[t + 1]]. places are where each word stands, by starts [V + 1]. rows and
// columns [blocks, V] are totals of PPMI.
void cipher_vectors(int64_t T, const uint32_t* tokens, int64_t V, const int64_t* starts,
                    const uint32_t* places, int64_t window, int64_t apart, int64_t weight,
                    int64_t bits, const int64_t* first, const int32_t* active, const double* base,
                    const double* scale, const int64_t* rows, const int64_t* columns,
                    float* vectors) {
    const int64_t blocks = apart ? 2 * window : 1;
    std::vector<double> sums(blocks, 0.0), logs(kLogs);
    for (int64_t k = 0; k < blocks; ++k)
        for (int64_t w = 0; w < V; ++w) sums[k] += double(rows[k * V + w]);
    for (int64_t c = 0; c < kLogs; ++c) logs[c] = std::log1p(double(c));
#pragma omp parallel
    {
        std::vector<uint32_t> counts(V, 0), seen;
        std::vector<double> made(bits);
#pragma omp for schedule(dynamic, 64)
        for (int64_t w = 0; w < V; ++w) {
            for (int64_t k = 0; k < blocks; ++k) {
                // Offsets of the block: one, or all.
                const int64_t one = k < window ? k - window : k - window + 1;
                const int64_t low = apart ? one : -window, high = apart ? one : window;
                seen.clear();
                for (int64_t p = starts[w]; p < starts[w + 1]; ++p) {
                    const int64_t i = places[p];
                    const int64_t end = std::min(i + high, T - 1);
                    for (int64_t j = std::max<int64_t>(i + low, 0); j <= end; ++j) {
                        const uint32_t t = tokens[j];
                        if (t == NONE || j == i) continue;
                        if (counts[t]++ == 0) seen.push_back(t);
                    }
                }
                std::fill(made.begin(), made.end(), 0.0);
                double all = 0.0;  // what every bit gets
                for (const uint32_t t : seen) {
                    const uint32_t c = counts[t];
                    counts[t] = 0;
                    double g = c;
                    if (weight == LOG) g = c < kLogs ? logs[c] : std::log1p(double(c));
                    if (weight == PPMI) {
                        const double by_chance =
                            double(rows[k * V + w]) * double(columns[k * V + t]);
                        g = std::max(0.0, std::log(double(c) * sums[k] / by_chance));
                    }
                    all += g * base[t];
                    const double each = g * scale[t];
                    for (int64_t a = first[t]; a < first[t + 1]; ++a) made[active[a]] += each;
                }
                float* out = vectors + (w * blocks + k) * bits;
                for (int64_t b = 0; b < bits; ++b) out[b] = float(made[b] + all);
            }
        }
    }
}

}
