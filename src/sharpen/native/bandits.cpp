// What a bandit computes in each round. Twins: sharpen/search/bandits/{tsallis_inf,chebcb}.py.

#include <algorithm>
#include <cmath>
#include <cstdint>

extern "C" {

// p [d] minimizes <u, p> - 4 sum sqrt(p) over distributions; the least u is 0.
void tsallis(int64_t d, const double* u, double* p, int64_t steps) {
    double low = -2.0 * std::sqrt(double(d)), high = -2.0, y = low;
    for (int64_t step = 0; step < steps; ++step) {
        double sum = 0.0, slope = 0.0;
        for (int64_t i = 0; i < d; ++i) {
            const double inverse = 2.0 / (u[i] - y);
            p[i] = inverse * inverse;
            sum += p[i];
            slope += p[i] * inverse;
        }
        const double excess = sum - 1.0;
        if (std::fabs(excess) < 1e-15) break;
        (excess > 0.0 ? high : low) = y;
        double moved = y - excess / slope;
        if (!(low <= moved && moved <= high)) moved = (low + high) / 2.0;
        if (moved == y) break;
        y = moved;
    }
}

// theta [m], in and out, minimizes theta' G theta / 2 - theta' h within |theta_j| <= bounds_j, by
// cyclic coordinate descent until no coordinate moves further than `tiny` in a sweep.
void bounded_least_squares(int64_t m, const double* gram, const double* moment,
                           const double* bounds, double* theta, double tiny, int64_t sweeps) {
    for (int64_t j = 0; j < m; ++j) theta[j] = std::min(std::max(theta[j], -bounds[j]), bounds[j]);
    for (int64_t sweep = 0; sweep < sweeps; ++sweep) {
        double furthest = 0.0;
        for (int64_t j = 0; j < m; ++j) {
            const double* row = gram + j * m;
            if (!(row[j] > 0.0)) continue;
            double slope = -moment[j];
            for (int64_t k = 0; k < m; ++k) slope += row[k] * theta[k];
            double moved = theta[j] - slope / row[j];
            moved = std::min(std::max(moved, -bounds[j]), bounds[j]);
            furthest = std::max(furthest, std::fabs(moved - theta[j]));
            theta[j] = moved;
        }
        if (furthest <= tiny) break;
    }
}

}
