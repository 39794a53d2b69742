// Adafactor's step on float32 matrices and vectors, all parameters at once. Twin:
// sharpen/optim/adafactor.py, to rounding. Sums have the same bits at every width of vectors and
// for any number of threads: a matrix is cut into the same panels of rows, whose sums are added up
// in order.

#include <algorithm>
#include <vector>

#include "vectors.h"

namespace {

constexpr int64_t kTogether = 1 << 17;  // elements that a core's cache holds between the sweeps
constexpr int64_t kStrip = 4096;        // columns whose sums the nearest cache holds
constexpr int64_t kFewest = 64;         // rows of a panel, so that its sums take little memory

struct Job {
    float* w;  // [count, rows, columns]
    const float* g;
    float* row;     // [count, rows], means of squares; null for a vector, which is one row
    float* column;  // [count, columns]
    int64_t count, rows, columns;
    int64_t scaled, skip;  // flags: steps in units of the weights' size; skip when not finite
    int64_t bad;           // written: entries that are not finite
};

struct Numbers {
    float scale, decay, share, eps1, eps2, rate, clip;
};

// A matrix, its factors and the sums of its panels.
struct Matrix {
    const Job* job;
    const Numbers* k;
    int64_t number;  // in the job
    float* row;      // [rows]: sums of squares, then factors of the step
    float* column;   // [columns], as above
    float* part;     // [panels, columns]: sums of squares
    int64_t panels;
    bool rooted;  // the factors are one over roots; else their product is not yet bounded
    float rate;

    bool is_left() const { return job->bad && job->skip; }
    float* weights(int64_t i) const { return job->w + (number * job->rows + i) * job->columns; }
    const float* gradient(int64_t i) const {
        return job->g + (number * job->rows + i) * job->columns;
    }
};

struct Panel {
    Matrix* matrix;
    int64_t number, first, last;  // rows
    double weights = 0.0, steps = 0.0;  // sums of squares
    int64_t bad = 0;
};

void read(Panel& panel) {
    const Matrix& matrix = *panel.matrix;
    const int64_t n = matrix.job->columns;
    const bool scaled = matrix.job->scaled;
    const Floats scale = broadcast(matrix.k->scale);
    float* part = matrix.part + panel.number * n;
    std::fill(part, part + n, 0.0f);
    for (int64_t from = 0; from < n; from += kStrip) {
        float* sums = part + from;
        const int64_t width = std::min(kStrip, n - from);
        for (int64_t i = panel.first; i < panel.last; ++i) {
            const float* g = matrix.gradient(i) + from;
            const float* w = matrix.weights(i) + from;
            Sum squares, weights;
            for_lanes(width, [&](int64_t j, int64_t lanes) {
                __builtin_prefetch(g + j + kAhead, 0);
                const Floats x = load<Floats>(g + j, lanes) * scale, square = x * x;
                store(sums + j, load<Floats>(sums + j, lanes) + square, lanes);
                squares.add(j, square);
                if (!scaled) return;
                __builtin_prefetch(w + j + kAhead, 0);
                const Floats y = load<Floats>(w + j, lanes);
                weights.add(j, y * y);
            });
            matrix.row[i] += squares.value();
            panel.weights += weights.value();
        }
    }
    for (int64_t i = panel.first; i < panel.last; ++i) {
        if (std::isfinite(matrix.row[i])) continue;
        const float* g = matrix.gradient(i);
        for (int64_t j = 0; j < n; ++j) panel.bad += !std::isfinite(g[j] * matrix.k->scale);
    }
}

// start + share (end - start), with the end's own bits where share is 1.
inline float between(float start, float end, float share) {
    const float way = end - start;
    return share < 0.5f ? start + share * way : end - way * (1.0f - share);
}

void mix(Matrix& matrix) {
    const Job& job = *matrix.job;
    const Numbers& k = *matrix.k;
    const int64_t m = job.rows, n = job.columns;
    float *row = matrix.row, *column = matrix.column;
    std::copy(matrix.part, matrix.part + n, column);
    for (int64_t p = 1; p < matrix.panels; ++p)
        for (int64_t j = 0; j < n; ++j) column[j] += matrix.part[p * n + j];
    float* mean_column = job.column + matrix.number * n;
    float least = HUGE_VALF;
    for (int64_t j = 0; j < n; ++j) {
        column[j] = mean_column[j] = between(mean_column[j], column[j] / float(m), k.share);
        least = std::min(least, column[j]);
    }
    if (job.row) {
        float* mean_row = job.row + matrix.number * m;
        double sum = 0.0;
        for (int64_t i = 0; i < m; ++i) {
            mean_row[i] = between(mean_row[i], row[i] / float(n), k.share);
            sum += mean_row[i];
        }
        const float mean = std::max(static_cast<float>(sum / double(m)), k.eps1);
        float lowest = HUGE_VALF;
        for (int64_t i = 0; i < m; ++i) {
            row[i] = mean_row[i] / mean;
            lowest = std::min(lowest, row[i]);
        }
        least *= lowest;
    } else {
        row[0] = 1.0f;
    }
    matrix.rooted = least >= k.eps1 * k.eps1;
    if (!matrix.rooted) return;
    for (int64_t i = 0; i < m; ++i) row[i] = 1.0f / std::sqrt(row[i]);
    for (int64_t j = 0; j < n; ++j) column[j] = 1.0f / std::sqrt(column[j]);
}

// body(start, lanes, u) for the steps u of a row, before their size is limited.
template <class Body>
inline void for_steps(const Matrix& matrix, int64_t i, const Body& body) {
    const float* g = matrix.gradient(i);
    const float* column = matrix.column;
    const Floats row = broadcast(matrix.row[i]), scale = broadcast(matrix.k->scale);
    const Floats least = broadcast(matrix.k->eps1 * matrix.k->eps1);
    const auto x = [&](int64_t j, int64_t lanes) {
        __builtin_prefetch(g + j + kAhead, 0);
        return load<Floats>(g + j, lanes) * scale;
    };
    if (matrix.rooted)
        for_lanes(matrix.job->columns, [&](int64_t j, int64_t lanes) {
            body(j, lanes, x(j, lanes) * row * load<Floats>(column + j, lanes));
        });
    else
        for_lanes(matrix.job->columns, [&](int64_t j, int64_t lanes) {
            const Floats square = row * load<Floats>(column + j, lanes);
            body(j, lanes, x(j, lanes) / root(square > least ? square : least));
        });
}

void measure(Panel& panel) {
    for (int64_t i = panel.first; i < panel.last; ++i) {
        Sum squares;
        for_steps(*panel.matrix, i, [&](int64_t j, int64_t, Floats u) { squares.add(j, u * u); });
        panel.steps += squares.value();
    }
}

void apply(const Panel& panel) {
    const Matrix& matrix = *panel.matrix;
    const Floats decay = broadcast(matrix.k->decay), rate = broadcast(matrix.rate);
    for (int64_t i = panel.first; i < panel.last; ++i) {
        float* w = matrix.weights(i);
        for_steps(matrix, i, [&](int64_t j, int64_t lanes, Floats u) {
            __builtin_prefetch(w + j + kAhead, 1);
            store(w + j, load<Floats>(w + j, lanes) * decay - u * rate, lanes);
        });
    }
}

// The learning rate of a job over the excess of its steps' size.
float rate_of(const Job& job, const Numbers& k, double weights, double steps) {
    const double size = double(job.count * job.rows * job.columns);
    const double unit = job.scaled ? std::max<double>(k.eps2, std::sqrt(weights / size)) : 1.0;
    const double limit = std::max(1.0, std::sqrt(steps / size) / k.clip);
    return static_cast<float>(k.rate * unit / limit);
}

void step(Job* jobs, const Numbers* numbers, int64_t count, int threads) {
    std::vector<Matrix> matrices;
    std::vector<Panel> panels;
    int64_t floats = 0;
    const auto height = [](const Job& job) { return std::max(kFewest, kChunk / job.columns); };
    for (int64_t j = 0; j < count; ++j) {
        const Job& job = jobs[j];
        const int64_t cuts = (job.rows + height(job) - 1) / height(job);
        for (int64_t e = 0; e < job.count; ++e)
            matrices.push_back({&job, numbers + j, e, nullptr, nullptr, nullptr, cuts, false, 0});
        floats += job.count * (job.rows + (1 + cuts) * job.columns);
    }
    std::vector<float> space(floats);
    float* next = space.data();
    for (Matrix& matrix : matrices) {
        const Job& job = *matrix.job;
        matrix.row = next;
        matrix.column = matrix.row + job.rows;
        matrix.part = matrix.column + job.columns;
        next = matrix.part + matrix.panels * job.columns;
        for (int64_t p = 0, first = 0; p < matrix.panels; ++p, first += height(job))
            panels.push_back({&matrix, p, first, std::min(first + height(job), job.rows)});
    }
    std::vector<double> weights(count), steps(count);
    const int64_t all = static_cast<int64_t>(panels.size());
    const int64_t cut = static_cast<int64_t>(matrices.size());
#pragma omp parallel num_threads(threads) if (threads > 1 && all > 1)
    {
#pragma omp for schedule(static)
        for (int64_t p = 0; p < all; ++p) read(panels[p]);
#pragma omp single
        for (const Panel& panel : panels) {
            const int64_t j = panel.matrix->job - jobs;
            weights[j] += panel.weights;
            jobs[j].bad += panel.bad;
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < cut; ++i)
            if (!matrices[i].is_left()) mix(matrices[i]);
#pragma omp for schedule(static)
        for (int64_t p = 0; p < all; ++p)
            if (!panels[p].matrix->is_left()) measure(panels[p]);
#pragma omp single
        {
            for (const Panel& panel : panels) steps[panel.matrix->job - jobs] += panel.steps;
            for (Matrix& matrix : matrices) {
                const int64_t j = matrix.job - jobs;
                matrix.rate = rate_of(*matrix.job, *matrix.k, weights[j], steps[j]);
            }
        }
#pragma omp for schedule(static)
        for (int64_t p = 0; p < all; ++p)
            if (!panels[p].matrix->is_left()) apply(panels[p]);
    }
}

}  // namespace

// Steps of `count` parameters, those together that the cache holds.
extern "C" void adafactor_step(void* jobs, const float* numbers, int64_t count, int threads) {
    Job* all = static_cast<Job*>(jobs);
    const Numbers* each = reinterpret_cast<const Numbers*>(numbers);
    for (int64_t first = 0, last = 0; first < count; first = last) {
        for (int64_t n = 0; last < count && n < kTogether * threads; ++last)
            n += all[last].count * all[last].rows * all[last].columns;
        step(all + first, each + first, last - first, threads);
    }
}
