// Random bases from counters, and the steps of APOLLO and of FRUGAL on columns or rows, on float32
// matrices. Twins: sharpen/optim/{philox,apollo,frugal}.py. Nothing is contracted or reordered in the random numbers, so that all
// variants have the same bits; they differ from the twin's by rounding in log, sin and cos.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

constexpr int kBlock = 32;  // counters at a time

// Vectors of 64-bit numbers, and their product with 32 bits, which the language cannot ask for.
#if defined(__AVX512F__)
constexpr int kLanes = 8;
#elif defined(__AVX2__)
constexpr int kLanes = 4;
#else
constexpr int kLanes = 2;
#endif
typedef uint64_t Lanes __attribute__((vector_size(8 * kLanes), may_alias));

inline Lanes& lanes(uint64_t* x) { return *reinterpret_cast<Lanes*>(x); }

inline Lanes times(Lanes x, uint32_t factor) {
#if defined(__AVX512F__)
    return Lanes(_mm512_mul_epu32(__m512i(x), _mm512_set1_epi64(factor)));
#elif defined(__AVX2__)
    return Lanes(_mm256_mul_epu32(__m256i(x), _mm256_set1_epi64x(factor)));
#else
    return x * uint64_t(factor);
#endif
}

struct Words {
    uint32_t w[4][kBlock];
};

// Philox4x32-10 of the counters (k, first + lane, 0, 0). Words lie in 64 bits, which vectors need.
inline void philox(uint32_t k, uint32_t first, uint32_t key0, uint32_t key1, Words& out) {
    alignas(64) uint64_t c0[kBlock], c1[kBlock], c2[kBlock], c3[kBlock];
    for (int l = 0; l < kBlock; ++l) {
        c0[l] = k;
        c1[l] = first + l;
        c2[l] = c3[l] = 0;
    }
    for (int round = 0; round < 10; ++round) {
        for (int l = 0; l < kBlock; l += kLanes) {
            const Lanes low = times(lanes(c0 + l), 0xD2511F53u);
            const Lanes high = times(lanes(c2 + l), 0xCD9E8D57u);
            lanes(c0 + l) = (high >> 32) ^ lanes(c1 + l) ^ key0;
            lanes(c2 + l) = (low >> 32) ^ lanes(c3 + l) ^ key1;
            lanes(c1 + l) = high & 0xFFFFFFFFu;
            lanes(c3 + l) = low & 0xFFFFFFFFu;
        }
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    for (int l = 0; l < kBlock; ++l) {
        out.w[0][l] = uint32_t(c0[l]);
        out.w[1][l] = uint32_t(c1[l]);
        out.w[2][l] = uint32_t(c2[l]);
        out.w[3][l] = uint32_t(c3[l]);
    }
}

inline float uniform(uint32_t word) { return (float(int32_t(word >> 9)) + 0.5f) * 0x1p-23f; }

// Cephes' polynomial, for 0 < u < 1.
inline float log_of(float u) {
    int32_t bits;
    std::memcpy(&bits, &u, 4);
    float exponent = float((bits >> 23) - 127);
    bits = (bits & 0x7fffff) | 0x3f800000;
    float f;
    std::memcpy(&f, &bits, 4);
    const bool large = f > 1.41421356f;
    exponent = large ? exponent + 1.0f : exponent;
    f = (large ? 0.5f * f : f) - 1.0f;
    const float z = f * f;
    float y = 7.0376836292e-2f;
    y = y * f - 1.1514610310e-1f;
    y = y * f + 1.1676998740e-1f;
    y = y * f - 1.2420140846e-1f;
    y = y * f + 1.4249322787e-1f;
    y = y * f - 1.6668057665e-1f;
    y = y * f + 2.0000714765e-1f;
    y = y * f - 2.4999993993e-1f;
    y = y * f + 3.3333331174e-1f;
    y = y * f * z;
    y = y - 2.12194440e-4f * exponent - 0.5f * z;
    return f + y + 0.693359375f * exponent;
}

// Two normal numbers, by Box and Muller; u and v in (0, 1).
inline void normals(float u, float v, float* a, float* b) {
    const float radius = std::sqrt(-2.0f * log_of(u));
    const int quadrant = int(v * 4.0f + 0.5f);
    const float x = (v - 0.25f * float(quadrant)) * 6.28318530718f;
    const float z = x * x;
    float s = -1.9515295891e-4f;
    s = s * z + 8.3321608736e-3f;
    s = s * z - 1.6666654611e-1f;
    s = s * z * x + x;
    float c = 2.443315711809948e-5f;
    c = c * z - 1.388731625493765e-3f;
    c = c * z + 4.166664568298827e-2f;
    c = c * z * z - 0.5f * z + 1.0f;
    const float cosine = quadrant & 1 ? s : c, sine = quadrant & 1 ? c : s;
    const float sign_c = (quadrant + 1) & 2 ? -radius : radius;
    const float sign_s = quadrant & 2 ? -radius : radius;
    *a = sign_c * cosine;
    *b = sign_s * sine;
}

// ---- APOLLO.

struct Job {
    float* w;            // [rows, cols]
    const float* g;      // of the same shape
    const float* basis;  // [cols] or [rows]; read when the rank is 1
    float* m;            // [long, rank] (right) or [rank, long]
    float* v;
    float* last;         // the limiter's norm, or null
    const float* low;    // R, as m; null when the rank is 1
    int64_t rows, cols, rank;
    int64_t right, whole, skip;  // flags: columns compressed; one factor; skip when not finite
    int64_t bad;                 // written: entries that are not finite
};

struct Numbers {
    float scale, decay, b1, a1, b2, a2, eps, rate, front, back, gamma;
};

constexpr float kTiny = 1e-8f;

int64_t not_finite(const float* x, int64_t n) {
    int64_t bad = 0;
    for (int64_t i = 0; i < n; ++i) bad += !std::isfinite(x[i]);
    return bad;
}

bool all_finite(const float* x, int64_t n) {
    float any = 0.0f;  // else NaN
#pragma omp simd reduction(+ : any)
    for (int64_t i = 0; i < n; ++i) any += x[i] * 0.0f;
    return any == 0.0f;
}

// Squares of the norms of G's channels, and for rank 1 R.
void read(const Job& job, bool project, float* square, float* low) {
    const int64_t m = job.rows, n = job.cols;
    const float* p = job.basis;
    if (job.right) {
        for (int64_t i = 0; i < m; ++i) {
            const float* g = job.g + i * n;
            float sum = 0.0f, dot = 0.0f;
            if (project) {
#pragma omp simd reduction(+ : sum, dot)
                for (int64_t j = 0; j < n; ++j) {
                    sum += g[j] * g[j];
                    dot += g[j] * p[j];
                }
                low[i] = dot;
            } else {
#pragma omp simd reduction(+ : sum)
                for (int64_t j = 0; j < n; ++j) sum += g[j] * g[j];
            }
            square[i] = sum;
        }
        return;
    }
    std::memset(square, 0, n * sizeof(float));
    if (project) std::memset(low, 0, n * sizeof(float));
    for (int64_t i = 0; i < m; ++i) {
        const float* g = job.g + i * n;
        if (project) {
            const float pi = p[i];
#pragma omp simd
            for (int64_t j = 0; j < n; ++j) {
                square[j] += g[j] * g[j];
                low[j] += g[j] * pi;
            }
        } else {
#pragma omp simd
            for (int64_t j = 0; j < n; ++j) square[j] += g[j] * g[j];
        }
    }
}

// Moments of R; squares of the norms of N and R by channel.
void update(const Job& job, const Numbers& k, const float* low, float* upper, float* lower,
            int64_t length) {
    const int64_t outer = job.right ? length : job.rank, inner = job.right ? job.rank : length;
    for (int64_t j = 0; j < length; ++j) upper[j] = lower[j] = 0.0f;
    for (int64_t o = 0; o < outer; ++o) {
        float* m = job.m + o * inner;
        float* v = job.v + o * inner;
        const float* r = low + o * inner;
        float n2 = 0.0f, r2 = 0.0f;
        if (job.right) {
#pragma omp simd reduction(+ : n2, r2)
            for (int64_t i = 0; i < inner; ++i) {
                const float x = k.scale * r[i];
                m[i] = k.b1 * m[i] + k.a1 * x;
                v[i] = k.b2 * v[i] + k.a2 * x * x;
                const float normed = m[i] / (std::sqrt(v[i]) + k.eps);
                n2 += normed * normed;
                r2 += x * x;
            }
            upper[o] = n2;
            lower[o] = r2;
        } else {
#pragma omp simd
            for (int64_t i = 0; i < inner; ++i) {
                const float x = k.scale * r[i];
                m[i] = k.b1 * m[i] + k.a1 * x;
                v[i] = k.b2 * v[i] + k.a2 * x * x;
                const float normed = m[i] / (std::sqrt(v[i]) + k.eps);
                upper[i] += normed * normed;
                lower[i] += x * x;
            }
        }
    }
}

void apollo(Job& job, const Numbers& k, std::vector<float>& scratch) {
    const int64_t m = job.rows, n = job.cols, length = job.right ? m : n;
    scratch.resize(4 * length);
    float *square = scratch.data(), *own = square + length;
    float *upper = own + length, *lower = upper + length;
    read(job, job.low == nullptr, square, own);
    double total = 0.0;
    for (int64_t j = 0; j < length; ++j) total += square[j];
    if (!std::isfinite(total)) {
        job.bad = not_finite(job.g, m * n);
        if (job.bad && job.skip) return;
    }
    update(job, k, job.low ? job.low : own, upper, lower, length);
    if (job.whole) {
        double n2 = 0.0, r2 = 0.0;
        for (int64_t j = 0; j < length; ++j) n2 += upper[j], r2 += lower[j];
        const float c = float(std::sqrt(n2)) / (float(std::sqrt(r2)) + kTiny);
        for (int64_t j = 0; j < length; ++j) upper[j] = c;
    } else {
        for (int64_t j = 0; j < length; ++j)
            upper[j] = std::sqrt(upper[j]) / (std::sqrt(lower[j]) + kTiny);
    }
    float growth = 1.0f;
    if (job.last) {
        double sum = 0.0;
        for (int64_t j = 0; j < length; ++j) sum += double(upper[j]) * upper[j] * square[j];
        const float norm = float(std::sqrt(sum)) * std::fabs(k.scale) * k.front;
        if (*job.last > 0.0f) {
            growth = norm / (*job.last + kTiny);
            growth = (growth < k.gamma ? k.gamma : growth) / k.gamma;
        }
        *job.last = norm / growth;
    }
    const float rate = k.rate * k.front * k.back * k.scale / growth;
    for (int64_t j = 0; j < length; ++j) upper[j] *= rate;
    for (int64_t i = 0; i < m; ++i) {
        float* w = job.w + i * n;
        const float* g = job.g + i * n;
        if (job.right) {
            const float f = upper[i];
#pragma omp simd
            for (int64_t j = 0; j < n; ++j) w[j] = k.decay * w[j] - f * g[j];
        } else {
#pragma omp simd
            for (int64_t j = 0; j < n; ++j) w[j] = k.decay * w[j] - upper[j] * g[j];
        }
    }
}

// ---- FRUGAL on columns or rows.

struct Split {
    float* w;  // [rows, cols]
    const float* g;
    const int32_t* index;  // [count], ascending
    float* m;              // [rows, count] or [count, cols]
    float* v;
    int64_t rows, cols, count;
    int64_t by_columns, sign, skip;  // flags; without sign the rest moves along the gradient
    int64_t bad;                     // written: entries that are not finite
};

struct SplitNumbers {
    float scale, decay, b1, a1, b2, a2, eps, rate, root, rest;
};

inline float adam(const SplitNumbers& k, float w, float g, float* m, float* v) {
    *m = k.b1 * *m + k.a1 * g;
    *v = k.b2 * *v + k.a2 * g * g;
    return k.decay * w - k.rate * *m / (std::sqrt(*v) / k.root + k.eps);
}

inline void rest(const Split& job, const SplitNumbers& k, float* w, const float* g, int64_t n) {
    const float rate = k.rest, along = k.rest * k.scale;
    if (job.sign) {
        const float up = k.scale < 0.0f ? -rate : rate;
#pragma omp simd
        for (int64_t j = 0; j < n; ++j) {
            const float step = g[j] > 0.0f ? up : g[j] < 0.0f ? -up : 0.0f;
            w[j] = k.decay * w[j] - step;
        }
    } else {
#pragma omp simd
        for (int64_t j = 0; j < n; ++j) w[j] = k.decay * w[j] - along * g[j];
    }
}

void split(Split& job, const SplitNumbers& k, std::vector<float>& scratch) {
    const int64_t n = job.cols, total = job.rows * n;
    if (!all_finite(job.g, total)) {
        job.bad = not_finite(job.g, total);
        if (job.skip) return;
    }
    scratch.resize(2 * job.count);
    float *held = scratch.data(), *grad = held + job.count;
    int64_t next = 0;
    for (int64_t i = 0; i < job.rows; ++i) {
        float* w = job.w + i * n;
        const float* g = job.g + i * n;
        if (job.by_columns) {
            float *m = job.m + i * job.count, *v = job.v + i * job.count;
            for (int64_t j = 0; j < job.count; ++j) {
                held[j] = w[job.index[j]];
                grad[j] = k.scale * g[job.index[j]];
            }
            rest(job, k, w, g, n);
#pragma omp simd
            for (int64_t j = 0; j < job.count; ++j)
                held[j] = adam(k, held[j], grad[j], m + j, v + j);
            for (int64_t j = 0; j < job.count; ++j) w[job.index[j]] = held[j];
        } else if (next < job.count && job.index[next] == i) {
            float *m = job.m + next * n, *v = job.v + next * n;
#pragma omp simd
            for (int64_t j = 0; j < n; ++j) w[j] = adam(k, w[j], k.scale * g[j], m + j, v + j);
            ++next;
        } else {
            rest(job, k, w, g, n);
        }
    }
}

// body(i, scratch) for every matrix, each by one thread.
template <class Body>
void for_matrices(int64_t count, int threads, const Body& body) {
#pragma omp parallel num_threads(threads) if (threads > 1 && count > 1)
    {
        std::vector<float> scratch;
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < count; ++i) body(i, scratch);
    }
}

}  // namespace

// Steps of `count` matrices.
extern "C" void apollo_step(void* jobs, const float* numbers, int64_t count, int threads) {
    Job* all = static_cast<Job*>(jobs);
    const Numbers* each = reinterpret_cast<const Numbers*>(numbers);
    for_matrices(count, threads, [=](int64_t i, auto& scratch) { apollo(all[i], each[i], scratch); });
}

extern "C" void split_step(void* jobs, const float* numbers, int64_t count, int threads) {
    Split* all = static_cast<Split*>(jobs);
    const SplitNumbers* each = reinterpret_cast<const SplitNumbers*>(numbers);
    for_matrices(count, threads, [=](int64_t i, auto& scratch) { split(all[i], each[i], scratch); });
}

// out [rank, width]: normal numbers / root.
extern "C" void normal_rows(float* out, int64_t rank, int64_t width, uint32_t key0, uint32_t key1,
                            float root, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && rank * width > 16384)
    for (int64_t k = 0; k < rank; ++k) {
        float numbers[4 * kBlock];
        for (int64_t first = 0; first < width; first += 4 * kBlock) {
            Words c;
            philox(uint32_t(k), uint32_t(first / 4), key0, key1, c);
#pragma omp simd
            for (int l = 0; l < kBlock; ++l) {
                float a, b, d, e;
                normals(uniform(c.w[0][l]), uniform(c.w[1][l]), &a, &b);
                normals(uniform(c.w[2][l]), uniform(c.w[3][l]), &d, &e);
                numbers[4 * l] = a / root;
                numbers[4 * l + 1] = b / root;
                numbers[4 * l + 2] = d / root;
                numbers[4 * l + 3] = e / root;
            }
            const int64_t n = width - first < 4 * kBlock ? width - first : 4 * kBlock;
            std::memcpy(out + k * width + first, numbers, n * sizeof(float));
        }
    }
}
