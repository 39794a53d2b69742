// Tile registers (AMX): eight of 16 rows by 64 bytes. A thread sets them up, uses them, and leaves
// them as it found them: oneDNN has tiles of its own.

#pragma once

#include <cstdint>

#if defined(__AVX512F__) && defined(__linux__)
#define SHARPEN_TILES 1
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

constexpr int kTileRows = 16;

#if defined(SHARPEN_TILES)
struct alignas(64) TileShapes {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
#endif

class Tiles {
#if defined(SHARPEN_TILES)
   public:
    explicit Tiles(bool wanted) : wanted_(wanted) {
        if (!wanted) return;
        const TileShapes shapes;
        asm volatile("sttilecfg %0" : "=m"(before_));
        asm volatile("ldtilecfg %0" ::"m"(shapes));
    }
    ~Tiles() {
        if (wanted_) asm volatile("ldtilecfg %0" ::"m"(before_));
    }
    Tiles(const Tiles&) = delete;

   private:
    bool wanted_;
    TileShapes before_;
#else
   public:
    explicit Tiles(bool) {}
#endif
};

}  // namespace

// Whether the system lets this process use tile registers, on a processor that has them.
extern "C" void request_tiles(int32_t* granted) {
#if defined(SHARPEN_TILES)
    constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    *granted = syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
    *granted = 0;
#endif
}
