// Steps of element-wise optimizers and of LAMB on float32 weights, with states in float32 or in
// blocks of 8- or 4-bit codes, for all parameters at once. Twins: the rules in sharpen/optim/
// through engine.py, and quant.py there. States, codes and the weights of Lion and SGD have the
// twins' bits, so fused multiply-adds are written out and the file is compiled without contraction
// of others.

#include <type_traits>
#include <vector>

#include "codes.h"

namespace {

// ---- The rules: weights w of elements with gradients g, and up to three states s.

constexpr int kStates = 3;
constexpr int kMoment = 1, kSquare = 2, kSlow = 4;  // s[0], s[1], s[2]; only the second has no sign

// body(k) for the numbers of the states that a rule has.
template <int Has, class Body>
inline void for_states(const Body& body) {
    if constexpr (Has & kMoment) body(std::integral_constant<int, 0>());
    if constexpr (Has & kSquare) body(std::integral_constant<int, 1>());
    if constexpr (Has & kSlow) body(std::integral_constant<int, 2>());
}

struct Moments {
    static constexpr int kHas = kMoment | kSquare;
    static constexpr int kNumbers = 8;
    Floats decay, beta1, rest1, beta2, rest2, rate, correction, eps;
    explicit Moments(const float* k)
        : decay(broadcast(k[0])), beta1(broadcast(k[1])), rest1(broadcast(k[2])),
          beta2(broadcast(k[3])), rest2(broadcast(k[4])), rate(broadcast(k[5])),
          correction(broadcast(k[6])), eps(broadcast(k[7])) {}
    void mix(Floats g, Floats* s) const {
        s[0] = fused(g, rest1, s[0] * beta1);
        s[1] = fused(g * rest2, g, s[1] * beta2);
    }
    Floats lower(const Floats* s) const { return root(s[1]) * correction + eps; }
};

struct AdamW : Moments {
    using Moments::Moments;
    void operator()(Floats g, Floats& w, Floats* s) const {
        mix(g, s);
        w = w * decay - s[0] * rate / lower(s);
    }
};

struct NAdamW : Moments {
    using Moments::Moments;
    void operator()(Floats g, Floats& w, Floats* s) const {
        mix(g, s);
        const Floats ahead = fused(g, rest1, s[0] * beta1);
        w = w * decay - ahead * rate / lower(s);
    }
};

struct AdEMAMix : Moments {
    static constexpr int kHas = kMoment | kSquare | kSlow;
    static constexpr int kNumbers = Moments::kNumbers + 3;
    Floats beta3, rest3, share;
    explicit AdEMAMix(const float* k)
        : Moments(k), beta3(broadcast(k[8])), rest3(broadcast(k[9])), share(broadcast(k[10])) {}
    void operator()(Floats g, Floats& w, Floats* s) const {
        mix(g, s);
        s[2] = fused(g, rest3, s[2] * beta3);
        w = w * decay - (s[0] + s[2] * share) * rate / lower(s);
    }
};

// decay: of the weights in the step. rate: with the ratio of the norms.
struct Lamb : Moments {
    static constexpr int kNumbers = Moments::kNumbers + 3;
    static constexpr int kRate = 5, kLargest = 9, kMatrix = 10;  // of the numbers
    Floats first;
    explicit Lamb(const float* k) : Moments(k), first(broadcast(k[8])) {}
    Floats direction(Floats g, Floats w, Floats* s) const {
        mix(g, s);
        return fused(w, decay, s[0] * first / lower(s));
    }
    void operator()(Floats g, Floats& w, Floats* s) const { w = w - direction(g, w, s) * rate; }
};

struct Adagrad {
    static constexpr int kHas = kSquare;
    static constexpr int kNumbers = 4;
    Floats decay, coupled, rate, eps;
    explicit Adagrad(const float* k)
        : decay(broadcast(k[0])), coupled(broadcast(k[1])), rate(broadcast(k[2])),
          eps(broadcast(k[3])) {}
    void operator()(Floats g, Floats& w, Floats* s) const {
        g = fused(w, coupled, g);
        s[1] = fused(g, g, s[1]);
        w = w * decay - g * rate / (root(s[1]) + eps);
    }
};

// rate, -rate or 0.
inline Floats signed_as(Floats x, Floats rate) {
    const Ints size = bits(rate) & (x != 0.0f);
    return floats(size | (bits(x) & static_cast<int32_t>(0x80000000)));
}

struct Lion {
    static constexpr int kHas = kMoment;
    static constexpr int kNumbers = 6;
    Floats decay, beta1, rest1, beta2, rest2, rate;
    explicit Lion(const float* k)
        : decay(broadcast(k[0])), beta1(broadcast(k[1])), rest1(broadcast(k[2])),
          beta2(broadcast(k[3])), rest2(broadcast(k[4])), rate(broadcast(k[5])) {}
    void operator()(Floats g, Floats& w, Floats* s) const {
        w = w * decay - signed_as(fused(g, rest1, s[0] * beta1), rate);
        s[0] = fused(g, rest2, s[0] * beta2);
    }
};

struct Sgd {
    static constexpr int kHas = 0;
    static constexpr int kNumbers = 3;
    Floats decay, coupled, rate;
    explicit Sgd(const float* k)
        : decay(broadcast(k[0])), coupled(broadcast(k[1])), rate(broadcast(k[2])) {}
    void operator()(Floats g, Floats& w, Floats*) const {
        w = w * decay - fused(w, coupled, g) * rate;
    }
};

struct Momentum {
    static constexpr int kHas = kMoment;
    static constexpr int kNumbers = 6;
    Floats decay, coupled, rate, momentum, rest;
    bool ahead;  // Nesterov's
    explicit Momentum(const float* k)
        : decay(broadcast(k[0])), coupled(broadcast(k[1])), rate(broadcast(k[2])),
          momentum(broadcast(k[3])), rest(broadcast(k[4])), ahead(k[5] != 0.0f) {}
    void operator()(Floats g, Floats& w, Floats* s) const {
        g = fused(w, coupled, g);
        s[0] = fused(g, rest, s[0] * momentum);
        w = w * decay - (ahead ? fused(s[0], momentum, g) : s[0]) * rate;
    }
};

struct SignSgd {
    static constexpr int kHas = 0;
    static constexpr int kNumbers = 2;
    Floats decay, rate;
    explicit SignSgd(const float* k) : decay(broadcast(k[0])), rate(broadcast(k[1])) {}
    void operator()(Floats g, Floats& w, Floats*) const {
        w = w * decay - signed_as(g, rate);
    }
};

// ---- A step: blocks of all parameters, in chunks, over all threads.

struct Job {
    float* w;
    const float* g;
    void* state[kStates];   // float32, or codes
    float* scale[kStates];  // of the blocks of codes
    int64_t rows, width, block, bits;
    int64_t floor, mask;  // whether code 0 without sign is a little above 0; see update_block
};

// A block of a job, with its states in float32 or in codes of a byte each.
template <int Bits, int Has>
class Block {
   public:
    float* w;
    const float* g;
    int64_t n;
    float* value[kStates];

    // space: for kStates blocks of floats and of bytes.
    Block(const Job& job, int64_t number, float* space)
        : signed_(scale(job, 0, number), job.floor), unsigned_(scale(job, 1, number), job.floor),
          slow_(scale(job, 2, number), job.floor) {
        const Span span = span_of(number, job.width, job.block, Bits);
        w = job.w + span.start;
        g = job.g + span.start;
        n = span.n;
        uint8_t* bytes = reinterpret_cast<uint8_t*>(space + kStates * job.block);
        for_states<Has>([&](auto k) {
            code_[k] = static_cast<uint8_t*>(job.state[k]) + span.code;
            buffer_[k] = bytes + k * job.block;
            value[k] = Bits ? space + k * job.block
                            : static_cast<float*>(job.state[k]) + span.start;
            if (Bits == 4) unpack(code_[k], buffer_[k], n);
        });
    }

    // State K of elements from i.
    template <int K>
    Floats read(int64_t i, int64_t lanes) const {
        if constexpr (Bits == 0) return load<Floats>(value[K] + i, lanes);
        const Bytes codes = load<Bytes>((Bits == 4 ? buffer_[K] : code_[K]) + i, lanes);
        if constexpr (K == 0) return signed_(codes);
        if constexpr (K == 1) return unsigned_(codes);
        return slow_(codes);
    }

    // Make codes of the values of state K, with a scale.
    template <int K>
    void write(float scale) {
        encode_block<K != 1, kBits>(value[K], code_[K], scale, n, buffer_[K]);
    }

   private:
    static constexpr int kBits = Bits ? Bits : 8;
    static float scale(const Job& job, int k, int64_t number) {
        return Bits && Has >> k & 1 ? job.scale[k][number] : 0.0f;
    }

    Decoder<true, kBits> signed_;
    Decoder<false, kBits> unsigned_;
    Decoder<true, kBits> slow_;
    uint8_t* code_[kStates];
    uint8_t* buffer_[kStates];
};

// The step of a block. With Mask, elements whose gradient is not finite stay as they were; returns
// how many there are.
template <bool Mask, int Bits, class Rule>
int64_t update_block(const Job& job, const Rule& rule, float factor, int64_t number, float* space) {
    constexpr int kHas = Rule::kHas;
    Block<Bits, kHas> block(job, number, space);
    float* __restrict w = block.w;
    const float* __restrict g = block.g;
    const Floats scale = broadcast(factor);
    Ints bad = {}, peak[kStates] = {};
    // Inline, else all that it takes is in memory, the tables of codes too.
    for_lanes(block.n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        __builtin_prefetch(w + i + kAhead, 1);
        __builtin_prefetch(g + i + kAhead, 0);
        const Floats gradient = load<Floats>(g + i, lanes) * scale, w0 = load<Floats>(w + i, lanes);
        Floats w1 = w0, s0[kStates], s1[kStates];
        for_states<kHas>([&](auto k) {
            if (!Bits) __builtin_prefetch(block.value[k] + i + kAhead, 1);
            s1[k] = s0[k] = block.template read<k>(i, lanes);
        });
        rule(gradient, w1, s1);
        if constexpr (Mask) {
            const Ints finite = is_finite(gradient);
            bad += finite + 1;
            w1 = finite ? w1 : w0;
            for_states<kHas>([&](auto k) { s1[k] = finite ? s1[k] : s0[k]; });
        }
        store(w + i, w1, lanes);
        for_states<kHas>([&](auto k) {
            float* to = block.value[k] + i;
            store(to, s1[k], lanes);
            // What was stored: lanes past the end are 0 there, but hold values here.
            if (Bits) peak[k] = most(peak[k], magnitude(load<Floats>(to, lanes)));
        });
    });
    if constexpr (Bits != 0)
        for_states<kHas>([&](auto k) {
            const float largest = scale_of(peak[k]);
            job.scale[k][number] = largest;
            block.template write<k>(largest);
        });
    return total(bad);
}

// The function for a job's codes of those for float32, 8 and 4 bits.
template <class Function>
Function* chosen(const Job& job, Function* full, Function* eight, Function* four) {
    return job.bits == 8 ? eight : job.bits == 4 ? four : full;
}

// numbers: for each job the factor of its gradients, then those of the rule.
template <class Rule>
int64_t update_blocks(const Job& job, const float* numbers, int64_t first, int64_t last,
                      float* space) {
    constexpr int kEight = Rule::kHas ? 8 : 0, kFour = Rule::kHas ? 4 : 0;
    const Rule rule(numbers + 1);
    const auto update =
        job.mask ? chosen(job, update_block<true, 0, Rule>, update_block<true, kEight, Rule>,
                          update_block<true, kFour, Rule>)
                 : chosen(job, update_block<false, 0, Rule>, update_block<false, kEight, Rule>,
                          update_block<false, kFour, Rule>);
    int64_t bad = 0;
    for (int64_t k = first; k < last; ++k) bad += update(job, rule, numbers[0], k, space);
    return bad;
}

struct Chunk {
    int64_t job, first, last;  // blocks
};

// body(number, chunk, space) for chunks of all jobs.
template <class Body>
void for_chunks(const std::vector<Chunk>& chunks, const Job* jobs, int threads, const Body& body) {
    int64_t longest = 0;
    for (const Chunk& chunk : chunks)
        if (jobs[chunk.job].bits) longest = std::max(longest, jobs[chunk.job].block);
    const int64_t count = static_cast<int64_t>(chunks.size());
#pragma omp parallel num_threads(threads) if (threads > 1 && count > 1)
    {
        std::vector<float> space(2 * kStates * longest);
#pragma omp for schedule(static)
        for (int64_t c = 0; c < count; ++c) body(c, chunks[c], space.data());
    }
}

std::vector<Chunk> chunks_of(const Job* jobs, int64_t count) {
    std::vector<Chunk> chunks;
    for (int64_t j = 0; j < count; ++j) {
        const int64_t blocks = jobs[j].rows * blocks_of(jobs[j].width, jobs[j].block);
        const int64_t size = std::max<int64_t>(kChunk / jobs[j].block, 1);
        for (int64_t first = 0; first < blocks; first += size)
            chunks.push_back({j, first, std::min(first + size, blocks)});
    }
    return chunks;
}

inline void count_in(int64_t& total, int64_t found) {
    if (!found) return;
#pragma omp atomic
    total += found;
}

template <class Rule>
void step(const Job* jobs, const float* numbers, int64_t count, int64_t* bad, int threads) {
    for_chunks(chunks_of(jobs, count), jobs, threads,
               [&](int64_t, const Chunk& chunk, float* space) {
                   const int64_t j = chunk.job;
                   const float* own = numbers + j * (1 + Rule::kNumbers);
                   const int64_t found =
                       update_blocks<Rule>(jobs[j], own, chunk.first, chunk.last, space);
                   count_in(bad[j], found);
               });
}

// ---- LAMB. The length of its step depends on whole norms, so a first sweep finds those, and what
// is not finite, without changing anything.

constexpr int64_t kTogether = 1 << 16;  // elements that a core's cache holds between the sweeps

struct Norms {
    double weights = 0.0, steps = 0.0;  // squared
    int64_t bad = 0;
};

template <int Bits>
Norms norms_of(const Job& job, const float* numbers, int64_t first, int64_t last, float* space) {
    const Lamb rule(numbers + 1);
    const Floats scale = broadcast(numbers[0]);
    Norms norms;
    for (int64_t number = first; number < last; ++number) {
        const Block<Bits, Lamb::kHas> block(job, number, space);
        Sum weights, steps;
        Ints bad = {};
        for_lanes(block.n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
            __builtin_prefetch(block.w + i + kAhead, 0);
            __builtin_prefetch(block.g + i + kAhead, 0);
            const Floats g = load<Floats>(block.g + i, lanes) * scale;
            const Floats w = load<Floats>(block.w + i, lanes);
            Floats s[kStates];
            for_states<Lamb::kHas>([&](auto k) {
                if (!Bits) __builtin_prefetch(block.value[k] + i + kAhead, 0);
                s[k] = block.template read<k>(i, lanes);
            });
            Floats u = rule.direction(g, w, s);
            u = load<Floats>(reinterpret_cast<const float*>(&u), lanes);
            weights.add(i, w * w);
            steps.add(i, u * u);
            bad += is_finite(g) + 1;
        });
        norms.weights += weights.value();
        norms.steps += steps.value();
        norms.bad += total(bad);
    }
    return norms;
}

// Of the weights, bounded, to the step.
float ratio(const Norms& norms, const float* numbers) {
    const double weights = std::sqrt(norms.weights), step = std::sqrt(norms.steps);
    if (numbers[Lamb::kMatrix] == 0.0f || !(weights > 0.0 && step > 0.0)) return 1.0f;
    return static_cast<float>(std::min<double>(weights, numbers[Lamb::kLargest]) / step);
}

void lamb(const Job* jobs, const float* numbers, int64_t count, int64_t* bad, int threads) {
    constexpr int64_t kOwn = 1 + Lamb::kNumbers;
    const std::vector<Chunk> chunks = chunks_of(jobs, count);
    std::vector<Norms> parts(chunks.size()), whole(count);
    for_chunks(chunks, jobs, threads, [&](int64_t c, const Chunk& chunk, float* space) {
        const Job& job = jobs[chunk.job];
        const auto norms = chosen(job, norms_of<0>, norms_of<8>, norms_of<4>);
        parts[c] = norms(job, numbers + chunk.job * kOwn, chunk.first, chunk.last, space);
    });
    for (size_t c = 0; c < chunks.size(); ++c) {  // in this order for any number of threads
        Norms& norms = whole[chunks[c].job];
        norms.weights += parts[c].weights;
        norms.steps += parts[c].steps;
        norms.bad += parts[c].bad;
    }
    std::vector<Job> kept;
    std::vector<float> theirs;
    for (int64_t j = 0; j < count; ++j) {
        bad[j] = jobs[j].mask ? whole[j].bad : 0;
        if (bad[j]) continue;
        const float* own = numbers + j * kOwn;
        kept.push_back(jobs[j]);
        kept.back().mask = 0;
        theirs.insert(theirs.end(), own, own + kOwn);
        theirs[theirs.size() - kOwn + 1 + Lamb::kRate] *= ratio(whole[j], own + 1);
    }
    std::vector<int64_t> none(kept.size());
    step<Lamb>(kept.data(), theirs.data(), static_cast<int64_t>(kept.size()), none.data(), threads);
}

// ---- Tensors to codes and back.

template <bool Signed, int Bits>
void to_codes(const float* x, uint8_t* code, float* scale, int64_t rows, int64_t width,
              int64_t block, int threads) {
#pragma omp parallel num_threads(threads) if (threads > 1 && rows * width > kChunk)
    {
        std::vector<uint8_t> buffer(Bits == 4 ? block : 0);
#pragma omp for schedule(static)
        for (int64_t k = 0; k < rows * blocks_of(width, block); ++k) {
            const Span span = span_of(k, width, block, Bits);
            Ints peak = {};
            for_lanes(span.n, [&](int64_t i, int64_t lanes) {
                peak = most(peak, magnitude(load<Floats>(x + span.start + i, lanes)));
            });
            scale[k] = scale_of(peak);
            encode_block<Signed, Bits>(x + span.start, code + span.code, scale[k], span.n,
                                       buffer.data());
        }
    }
}

template <bool Signed, int Bits>
void from_codes(const uint8_t* code, const float* scale, float* x, int64_t rows, int64_t width,
                int64_t block, bool floor, int threads) {
#pragma omp parallel num_threads(threads) if (threads > 1 && rows * width > kChunk)
    {
        std::vector<uint8_t> buffer(Bits == 4 ? block : 0);
#pragma omp for schedule(static)
        for (int64_t k = 0; k < rows * blocks_of(width, block); ++k) {
            const Span span = span_of(k, width, block, Bits);
            const Decoder<Signed, Bits> decode(scale[k], floor);
            const uint8_t* from = Bits == 4 ? buffer.data() : code + span.code;
            if (Bits == 4) unpack(code + span.code, buffer.data(), span.n);
            for_lanes(span.n, [&](int64_t i, int64_t lanes) {
                store(x + span.start + i, decode(load<Bytes>(from + i, lanes)), lanes);
            });
        }
    }
}

}  // namespace

// Take the ascending values of the 256 codes with and the 256 without sign, and of the 16 with
// sign; called once, before all others.
extern "C" void set_codes(const float* with_sign, const float* without_sign, float floor,
                          const float* small) {
    codes_.with_sign.prepare(with_sign + 127, 129, 1);
    codes_.without_sign.prepare(without_sign, 256, 2);
    codes_.small.prepare(small + 7, 9, 1);
    std::copy(without_sign, without_sign + 256, codes_.floored);
    codes_.floored[0] = floor;
}

// x [rows, width]; code [rows, bytes]; scale [rows, ceil(width / block)]. Blocks of 4-bit codes
// must be even.
extern "C" void quantize(const float* x, uint8_t* code, float* scale, int64_t rows, int64_t width,
                         int64_t block, int with_sign, int bits, int threads) {
    const auto make = bits == 4 ? (with_sign ? to_codes<true, 4> : to_codes<false, 4>)
                                : (with_sign ? to_codes<true, 8> : to_codes<false, 8>);
    make(x, code, scale, rows, width, block, threads);
}

extern "C" void dequantize(const uint8_t* code, const float* scale, float* x, int64_t rows,
                           int64_t width, int64_t block, int with_sign, int bits, int floor,
                           int threads) {
    const auto make = bits == 4 ? (with_sign ? from_codes<true, 4> : from_codes<false, 4>)
                                : (with_sign ? from_codes<true, 8> : from_codes<false, 8>);
    make(code, scale, x, rows, width, block, floor, threads);
}

// Take the steps of `count` jobs; bad [count]: how many of their gradients are not finite.
#define SHARPEN_STEP(NAME, RULE)                                                              \
    extern "C" void NAME(const void* jobs, const float* numbers, int64_t count, int64_t* bad, \
                         int threads) {                                                       \
        step<RULE>(static_cast<const Job*>(jobs), numbers, count, bad, threads);              \
    }

SHARPEN_STEP(adamw_step, AdamW)
SHARPEN_STEP(nadamw_step, NAdamW)
SHARPEN_STEP(ademamix_step, AdEMAMix)
SHARPEN_STEP(adagrad_step, Adagrad)
SHARPEN_STEP(lion_step, Lion)
SHARPEN_STEP(sgd_step, Sgd)
SHARPEN_STEP(momentum_step, Momentum)
SHARPEN_STEP(sign_sgd_step, SignSgd)

// Those of LAMB; where `mask` is set, a parameter with a gradient that is not finite is left alone.
extern "C" void lamb_step(const void* jobs, const float* numbers, int64_t count, int64_t* bad,
                          int threads) {
    const Job* all = static_cast<const Job*>(jobs);
    for (int64_t first = 0, last = 0; first < count; first = last) {
        for (int64_t n = 0; last < count && n < kTogether * threads; ++last)
            n += all[last].rows * all[last].width;
        const float* own = numbers + first * (1 + Lamb::kNumbers);
        lamb(all + first, own, last - first, bad + first, threads);
    }
}
