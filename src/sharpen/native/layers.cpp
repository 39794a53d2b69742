// All layers of a decoder over a few rows in one call: what sharpen/models/step.py and decode.py do
// operation by operation, with the same kernels in the same order, so the results have the same
// bits. A step of one row starts hundreds of operations; starting them from Python costs as much as
// the work of a small model. The kernels come as pointers, from the other libraries of this folder.

#include <cstdint>
#include <cstring>
#include <vector>

namespace {

// y [rows, outputs] = x [rows, inputs] W^T + b. kind: how ``run`` is called.
struct Product {
    void* run;
    const void *weight, *bias;
    int64_t kind, parts, inputs, outputs, way;
};

enum Kind { kPlain = 0, kDescribed = 1, kParts = 2 };

void multiply(const Product& p, const void* x, void* y, int64_t rows, int threads) {
    using Plain = void (*)(const void*, const void*, const void*, void*, int64_t, int64_t, int64_t, int);
    using Described = void (*)(const void*, const void*, const void*, void*, int64_t, int, int);
    using Parts = void (*)(const void*, int64_t, const void*, const void*, void*, int64_t, int64_t,
                           int64_t, int, int);
    const int way = static_cast<int>(p.way);
    switch (p.kind) {
        case kPlain:
            return reinterpret_cast<Plain>(p.run)(p.weight, p.bias, x, y, rows, p.inputs, p.outputs,
                                                  threads);
        case kDescribed:
            return reinterpret_cast<Described>(p.run)(p.weight, p.bias, x, y, rows, way, threads);
        default:
            return reinterpret_cast<Parts>(p.run)(p.weight, p.parts, p.bias, x, y, rows, p.inputs,
                                                  p.outputs, way, threads);
    }
}

struct Layer {
    const void *input_norm, *q_norm, *k_norm, *mlp_norm;  // the middle two may be null
    void *keys, *values;
    int64_t window;
    Product qkv, o, gate_up, down;
};

struct Shape {  // of attention; as in decode.cpp
    int64_t rows, heads, kv_heads, size, block, table_width, window, rope_stride;
};

struct Model {
    void *add_norm, *gate, *turn, *attend;
    const void* final_norm;
    int64_t layers, hidden, width;  // width: bytes of an element
    int64_t attend_tiles;           // -1: attend has no such argument
    float eps;
};

struct Pass {
    void* x;  // [rows, hidden]; is overwritten
    const float *cos, *sin;
    const int64_t *places, *wanted;
    const int32_t *tables, *sequences, *positions, *firsts;
    void* out;  // [wanted, hidden]: after the last norm
    int64_t num_wanted;
    Shape shape;
};

// Memory that lives as long as its thread: pieces of one buffer, each at a line of the cache.
class Space {
   public:
    explicit Space(int64_t bytes) {
        const int64_t total = bytes + (kMost + 1) * kLine;
        thread_local std::vector<char> memory;
        if (static_cast<int64_t>(memory.size()) < total) memory.resize(total);
        next_ = memory.data() + (-reinterpret_cast<uintptr_t>(memory.data()) & (kLine - 1));
    }
    char* take(int64_t size) {
        char* found = next_;
        next_ += rounded(size);
        return found;
    }

   private:
    static constexpr int64_t kLine = 64, kMost = 8;  // pieces
    static int64_t rounded(int64_t size) { return (size + kLine - 1) / kLine * kLine; }
    char* next_;
};

}  // namespace

extern "C" void run_layers(const Model* model, const Layer* layers, const Pass* pass, int threads) {
    using AddNorm = void (*)(void*, const void*, const void*, void*, int64_t, int64_t, float, int);
    using Gate = void (*)(const void*, void*, int64_t, int64_t, int);
    using Turn = void (*)(const void*, const float*, const float*, const void*, const void*, float,
                          float*, void*, void*, const int64_t*, const Shape*, int);
    using Attend = void (*)(const float*, const void*, const void*, const int32_t*, const int32_t*,
                            const int32_t*, const int32_t*, void*, const Shape*, int);
    using AttendTiles = void (*)(const float*, const void*, const void*, const int32_t*,
                                 const int32_t*, const int32_t*, const int32_t*, void*, const Shape*,
                                 int, int);
    const Model& m = *model;
    const Pass& p = *pass;
    const auto add_norm = reinterpret_cast<AddNorm>(m.add_norm);
    const auto gate = reinterpret_cast<Gate>(m.gate);
    const auto turn = reinterpret_cast<Turn>(m.turn);
    Shape shape = p.shape;
    const int64_t rows = shape.rows, width = m.width, query = shape.heads * shape.size;
    int64_t qkv_size = 0, gate_size = 0;
    for (int64_t i = 0; i < m.layers; ++i) {
        qkv_size = layers[i].qkv.outputs > qkv_size ? layers[i].qkv.outputs : qkv_size;
        gate_size = layers[i].gate_up.outputs > gate_size ? layers[i].gate_up.outputs : gate_size;
    }
    const int64_t row = rows * m.hidden * width;
    Space space(3 * row + rows * ((qkv_size + query) * width + query * 4 + gate_size * 2 * width));
    char *normed = space.take(row), *delta = space.take(row), *last = space.take(row);
    char *qkv = space.take(rows * qkv_size * width), *attended = space.take(rows * query * width);
    char *gate_up = space.take(rows * gate_size * width), *gated = space.take(rows * gate_size * width);
    auto* q = reinterpret_cast<float*>(space.take(rows * query * 4));
    auto* x = static_cast<char*>(p.x);
    for (int64_t i = 0; i < m.layers; ++i) {
        const Layer& l = layers[i];
        shape.window = l.window;
        add_norm(x, i ? delta : nullptr, l.input_norm, normed, rows, m.hidden, m.eps, threads);
        multiply(l.qkv, normed, qkv, rows, threads);
        turn(qkv, p.cos, p.sin, l.q_norm, l.k_norm, m.eps, q, l.keys, l.values, p.places, &shape,
             threads);
        if (m.attend_tiles < 0)
            reinterpret_cast<Attend>(m.attend)(q, l.keys, l.values, p.tables, p.sequences,
                                               p.positions, p.firsts, attended, &shape, threads);
        else
            reinterpret_cast<AttendTiles>(m.attend)(
                q, l.keys, l.values, p.tables, p.sequences, p.positions, p.firsts, attended, &shape,
                static_cast<int>(m.attend_tiles), threads);
        multiply(l.o, attended, delta, rows, threads);
        add_norm(x, delta, l.mlp_norm, normed, rows, m.hidden, m.eps, threads);
        multiply(l.gate_up, normed, gate_up, rows, threads);
        gate(gate_up, gated, rows, l.gate_up.outputs / 2, threads);
        multiply(l.down, gated, delta, rows, threads);
    }
    const int64_t size = m.hidden * width;
    for (int64_t i = 0; i < p.num_wanted; ++i) {
        std::memcpy(normed + i * size, x + p.wanted[i] * size, size);
        std::memcpy(last + i * size, delta + p.wanted[i] * size, size);
    }
    if (p.num_wanted)
        add_norm(normed, last, m.final_norm, p.out, p.num_wanted, m.hidden, m.eps, threads);
}
