// The next token of each row of logits: temperature, top-k, top-p, min-p, and one draw; or the
// largest logit. Likely tokens are put into buckets by their distance from the largest logit, and
// only the buckets at which something ends are sorted, so a row takes O(V). Sums are in float64.
// Twin: truncate and draw in sharpen/serve/draw.py.

#include <algorithm>
#include <cmath>
#include <vector>

#include "bfloat16.h"

namespace {

struct Settings {
    double temperature, top_p, min_p, u;  // temperature 0: the largest; below: no token
    int64_t top_k;                        // 0 for all
};

constexpr int kBlock = 256;      // tokens
constexpr int kBuckets = 2048;
// Distances from the largest logit, in units of the temperature, of which the first that holds enough
// tokens is taken; past the last one it is all of them.
constexpr int kReaches = 9;
constexpr double kReach[kReaches] = {0.05, 0.2, 0.6, 1.5, 3.0, 5.0, 8.0, 12.0, 700.0};

// e^x for x <= 0: 2^n e^r, |r| <= ln(2) / 2, the second factor by its series to r^13. 0 below -708.
inline double exponential(double x) {
    const double bounded = x < -708.0 ? -708.0 : x;
    const double shifted = bounded * 1.4426950408889634 + 0x1.8p52;  // its last bits are n
    const double n = shifted - 0x1.8p52;
    const double r = bounded - n * 0x1.62e42feep-1 - n * 1.90821492927058770002e-10;
    double y = 1.0 / 6227020800.0;
    y = y * r + 1.0 / 479001600.0;
    y = y * r + 1.0 / 39916800.0;
    y = y * r + 1.0 / 3628800.0;
    y = y * r + 1.0 / 362880.0;
    y = y * r + 1.0 / 40320.0;
    y = y * r + 1.0 / 5040.0;
    y = y * r + 1.0 / 720.0;
    y = y * r + 1.0 / 120.0;
    y = y * r + 1.0 / 24.0;
    y = y * r + 1.0 / 6.0;
    y = y * r + 0.5;
    y = y * r + 1.0;
    y = y * r + 1.0;
    uint64_t power;
    std::memcpy(&power, &shifted, 8);
    power = (power + 1023) << 52;
    double scale;
    std::memcpy(&scale, &power, 8);
    return x < -708.0 ? 0.0 : y * scale;
}

struct Likely {
    double weight, distance;
    int64_t token;
    bool operator<(const Likely& other) const {
        return distance != other.distance ? distance < other.distance : token < other.token;
    }
};

// Tokens in falling order, sorted only where that is asked for.
class Ranking {
   public:
    // items: all that matter, in the order of tokens.
    Ranking(const std::vector<Likely>& items, std::vector<Likely>& ranked)
        : ranked_(ranked), begins_(kBuckets + 1, 0), sums_(kBuckets, 0.0),
          sorted_(kBuckets, false) {
        double furthest = 0.0;
        for (const Likely& one : items) furthest = std::max(furthest, one.distance);
        scale_ = furthest > 0.0 ? (kBuckets - 1) / furthest : 0.0;
        for (const Likely& one : items) ++begins_[bucket(one) + 1];
        for (int b = 0; b < kBuckets; ++b) begins_[b + 1] += begins_[b];
        std::vector<int64_t> next(begins_.begin(), begins_.end() - 1);
        ranked_.resize(items.size());
        for (const Likely& one : items) {
            ranked_[next[bucket(one)]++] = one;
            sums_[bucket(one)] += one.weight;
        }
        count_ = static_cast<int64_t>(items.size());
    }

    // Keep the first `count`.
    void keep(int64_t count) {
        if (count >= count_) return;
        const int b = static_cast<int>(std::upper_bound(begins_.begin(), begins_.end(), count) -
                                       begins_.begin()) - 1;
        sort(b);
        sums_[b] = 0.0;
        for (int64_t i = begins_[b]; i < count; ++i) sums_[b] += ranked_[i].weight;
        for (int k = b + 1; k < kBuckets; ++k) sums_[k] = 0.0;
        count_ = count;
    }

    // How many it takes until the sum of those before reaches `weight`.
    int64_t reaching(double weight) {
        return find(weight, [&](double before, double) { return before >= weight; });
    }

    // Index of the first whose running sum passes `weight`; the last one if none does.
    int64_t passing(double weight) {
        const auto passed = [&](double before, double own) { return before + own > weight; };
        return std::min(find(weight, passed), count_ - 1);
    }

    double total() const {
        double sum = 0.0;
        for (double one : sums_) sum += one;
        return sum;
    }

    int64_t at_least(double weight) const {
        int64_t found = 0;
        for (int64_t i = 0; i < count_; ++i) found += ranked_[i].weight >= weight;
        return found;
    }

    int64_t token(int64_t i) const { return ranked_[i].token; }

   private:
    int bucket(const Likely& one) const { return static_cast<int>(one.distance * scale_); }

    void sort(int b) {
        if (!sorted_[b]) std::sort(ranked_.begin() + begins_[b], ranked_.begin() + begins_[b + 1]);
        sorted_[b] = true;
    }

    // The first item at which `ends` holds of the sum before it and its own weight.
    template <class Ends>
    int64_t find(double weight, const Ends& ends) {
        double before = 0.0;
        for (int b = 0; b < kBuckets && begins_[b] < count_; ++b) {
            if (before + sums_[b] < weight) {
                before += sums_[b];
                continue;
            }
            sort(b);
            const int64_t last = std::min(begins_[b + 1], count_);
            double inside = before;
            for (int64_t i = begins_[b]; i < last; ++i) {
                if (ends(inside, ranked_[i].weight)) return i;
                inside += ranked_[i].weight;
            }
            before += sums_[b];
        }
        return count_;
    }

    std::vector<Likely>& ranked_;
    std::vector<int64_t> begins_;
    std::vector<double> sums_;
    std::vector<bool> sorted_;
    double scale_;
    int64_t count_;
};

// Index of the largest, the first of equal ones; of a NaN if there is one.
template <class T>
int64_t largest(const T* logits, int64_t n) {
    float most = -INFINITY;
    int64_t at = 0;  // the block with the largest
    int32_t strange = 0;
    for (int64_t begin = 0; begin < n && !strange; begin += kBlock) {
        const T* from = logits + begin;
        const int64_t count = std::min<int64_t>(kBlock, n - begin);
        float highest = -INFINITY;
#pragma omp simd reduction(max : highest) reduction(| : strange)
        for (int64_t i = 0; i < count; ++i) {
            const float x = load(from[i]);
            highest = x > highest ? x : highest;
            strange |= x != x;
        }
        if (strange || highest > most) at = begin;
        most = highest > most ? highest : most;
    }
    for (int64_t i = at; i < n; ++i) {
        const float x = load(logits[i]);
        if (strange ? x != x : x == most) return i;
    }
    return 0;
}

// Weights e^((l - most) / t) of up to 256 tokens.
template <class T>
void weigh(const T* logits, int64_t n, double most, double temperature, double* weights) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i)
        weights[i] = exponential((static_cast<double>(load(logits[i])) - most) / temperature);
}

// The draw from all tokens, in their order.
template <class T>
int64_t draw_of_all(const T* logits, int64_t n, int64_t first, const Settings& s) {
    static thread_local std::vector<double> sums;
    const int64_t blocks = (n + kBlock - 1) / kBlock;
    const double most = load(logits[first]);
    sums.resize(blocks);
    double weights[kBlock], total = 0.0;
    for (int64_t b = 0; b < blocks; ++b) {
        const int64_t count = std::min<int64_t>(kBlock, n - b * kBlock);
        weigh(logits + b * kBlock, count, most, s.temperature, weights);
        double sum = 0.0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < count; ++i) sum += weights[i] >= s.min_p ? weights[i] : 0.0;
        sums[b] = sum;
        total += sum;
    }
    const double wanted = s.u * total;
    double before = 0.0;
    int64_t last = first;
    for (int64_t b = 0; b < blocks; before += sums[b++]) {
        if (before + sums[b] <= wanted && b + 1 < blocks) continue;
        const int64_t count = std::min<int64_t>(kBlock, n - b * kBlock);
        weigh(logits + b * kBlock, count, most, s.temperature, weights);
        double running = before;
        for (int64_t i = 0; i < count; ++i) {
            if (weights[i] < s.min_p || weights[i] == 0.0) continue;
            running += weights[i];
            last = b * kBlock + i;
            if (running > wanted) return last;
        }
    }
    return last;
}

// Lowest logit of those that can be kept, and the sum of all weights where top-p needs it.
template <class T>
double lowest(const T* logits, int64_t n, double most, const Settings& s, double& total) {
    double masses[kReaches] = {}, limits[kReaches], weights[kBlock];
    int64_t counts[kReaches] = {};
    for (int k = 0; k < kReaches; ++k) limits[k] = most - kReach[k] * s.temperature;
    total = 0.0;
    for (int64_t begin = 0; begin < n; begin += kBlock) {
        const T* from = logits + begin;
        const int64_t count = std::min<int64_t>(kBlock, n - begin);
        float highest = -INFINITY;
#pragma omp simd reduction(max : highest)
        for (int64_t i = 0; i < count; ++i) highest = std::max(highest, load(from[i]));
        if (!s.top_k) {
            weigh(from, count, most, s.temperature, weights);
            double sum = 0.0;
#pragma omp simd reduction(+ : sum)
            for (int64_t i = 0; i < count; ++i) sum += weights[i];
            total += sum;
        }
        for (int k = kReaches - 2; k >= 0 && highest >= limits[k]; --k) {
            double mass = 0.0;
            int64_t found = 0;
            if (s.top_k) {
#pragma omp simd reduction(+ : found)
                for (int64_t i = 0; i < count; ++i) found += load(from[i]) >= limits[k];
            } else {
#pragma omp simd reduction(+ : mass)
                for (int64_t i = 0; i < count; ++i)
                    mass += load(from[i]) >= limits[k] ? weights[i] : 0.0;
            }
            masses[k] += mass;
            counts[k] += found;
        }
    }
    for (int k = 0; k < kReaches - 1; ++k)
        if (s.top_k ? counts[k] >= s.top_k
                    : masses[k] >= s.top_p * total * 1.000001 || s.min_p > std::exp(0.01 - kReach[k]))
            return limits[k];
    return limits[kReaches - 1];
}

// The token, or -1 where probabilities are no numbers or none is asked for.
template <class T>
int64_t draw(const T* logits, int64_t n, const Settings& s) {
    if (n == 0 || s.temperature < 0.0) return -1;
    const int64_t first = largest(logits, n);
    if (s.temperature == 0.0) return first;
    const double most = load(logits[first]);
    if (!std::isfinite(most)) return -1;
    if (!s.top_k && s.top_p == 1.0) return draw_of_all(logits, n, first, s);
    double total;
    const double limit = lowest(logits, n, most, s, total);
    static thread_local std::vector<Likely> items, ranked;
    items.clear();
    for (int64_t begin = 0; begin < n; begin += kBlock) {
        const int64_t end = std::min<int64_t>(begin + kBlock, n);
        float highest = -INFINITY;
#pragma omp simd reduction(max : highest)
        for (int64_t i = begin; i < end; ++i) highest = std::max(highest, load(logits[i]));
        for (int64_t i = begin; highest >= limit && i < end; ++i) {
            const double x = load(logits[i]), distance = (most - x) / s.temperature;
            if (x >= limit) items.push_back({exponential(-distance), distance, i});
        }
    }
    Ranking ranking(items, ranked);
    if (s.top_k) {
        ranking.keep(s.top_k);
        total = ranking.total();
    }
    if (s.top_p < 1.0) ranking.keep(ranking.reaching(s.top_p * total));
    if (s.min_p > 0.0) ranking.keep(ranking.at_least(s.min_p));
    return ranking.token(ranking.passing(s.u * ranking.total()));
}

template <class T>
void draw_rows(const T* logits, int64_t rows, int64_t n, const Settings* settings, int64_t* tokens,
               int threads) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1 && rows > 1)
    for (int64_t r = 0; r < rows; ++r) tokens[r] = draw(logits + r * n, n, settings[r]);
}

}  // namespace

// logits [rows, n]; tokens [rows], -1 where the probabilities of a row are no numbers, and where its
// temperature is below 0.
extern "C" void draw_f32(const float* logits, int64_t rows, int64_t n, const Settings* settings,
                         int64_t* tokens, int threads) {
    draw_rows(logits, rows, n, settings, tokens, threads);
}

extern "C" void draw_bf16(const bf16* logits, int64_t rows, int64_t n, const Settings* settings,
                          int64_t* tokens, int threads) {
    draw_rows(logits, rows, n, settings, tokens, threads);
}
