// y = x w for routed experts, whose weights are grouped along the output axis, NEON with dot
// products. The four outputs of a register share each activation, four inputs to a lane. What
// few slots need (`gemv`) unpacks weights in registers and folds four groups' scales at a time.
#include "kernels_neon.h"
#include "neon_expert_gemm.h"

namespace mobilemoe {
namespace {

constexpr int64_t kQuads = 8;        // groups of four inputs in a block
constexpr int64_t kPassGroups = 48;  // groups whose sums are held at once

struct DotExpert {
  // out[n][4 q + p]: inputs 4q to 4q + 3 of the outputs 2 (4p + j) + n.
  static void arrange(const int8x16_t rows[kGroupSize], int8x16_t out[2][kGroupSize]) {
    for (int q = 0; q < kQuads; ++q) {
      int8x16_t packed[4];
      interleave(rows + 4 * q, packed);
      for (int p = 0; p < 4; ++p) {
        out[0][4 * q + p] = low_nibbles_16(packed[p]);
        out[1][4 * q + p] = high_nibbles_16(packed[p]);
      }
    }
  }

  template <int Slots>
  static void multiply(const int8x16_t w[kGroupSize], const int8_t* values, int64_t stride,
                       int32x4_t sums[Slots][4]) {
    for (int s = 0; s < Slots; ++s) {
      for (int p = 0; p < 4; ++p) sums[s][p] = vdupq_n_s32(0);
    }
    for (int half = 0; half < 2; ++half) {
      int8x16_t x[Slots];
      for (int s = 0; s < Slots; ++s) x[s] = vld1q_s8(values + s * stride + 16 * half);
      for_lanes([&](auto lane) {
        constexpr int q = decltype(lane)::value;
        for (int p = 0; p < 4; ++p) {
          const int8x16_t weights = w[16 * half + 4 * q + p];
          for (int s = 0; s < Slots; ++s) {
            sums[s][p] = vdotq_laneq_s32(sums[s][p], weights, x[s], q);
          }
        }
      });
    }
  }
};

// The activations of one block for four groups: quads[q] has in lane g the four int8 of inputs
// 4q to 4q + 3.
struct FoldedBlock {
  int8x16_t quads[kQuads];
  float32x4_t scales;
};

// The rule of fold_scale for four groups at once.
struct FoldScales {
  float32x4_t scales, inverses;
};

inline FoldScales fold_scales(uint16x4_t magnitude_bits) {
  const uint32x4_t bits = vmovl_u16(magnitude_bits);
  const uint32x4_t number = vcltq_u32(bits, vdupq_n_u32(0x7C00));
  const uint32x4_t usable = vandq_u32(number, vtstq_u32(bits, bits));
  const float32x4_t scales = floats_of(magnitude_bits);
  const float32x4_t inverses = vdivq_f32(vdupq_n_f32(1.0f), scales);
  const float32x4_t nan = vdupq_n_f32(std::numeric_limits<float>::quiet_NaN());
  return {vbslq_f32(number, scales, nan), vbslq_f32(usable, inverses, vdupq_n_f32(0.0f))};
}

// a, b, c, d: integers in the low byte of every lane.
inline int8x16_t join_bytes(const int32x4_t x[4]) {
  const int32x4_t low = vsliq_n_s32(x[0], x[1], 8), high = vsliq_n_s32(x[2], x[3], 8);
  return vreinterpretq_s8_s32(vsliq_n_s32(low, high, 16));
}

// `count` <= 4 groups, whose scales of the first input are at `scales`; rows are `stride` apart.
inline FoldedBlock fold_block(const uint8_t* scales, int64_t stride, int64_t count,
                              const float* values, float scale) {
  uint16x4_t halves[kGroupSize];
  uint16x4_t largest = vdup_n_u16(0);
  for (int64_t i = 0; i < kGroupSize; ++i) {
    halves[i] = load_halves(scales + i * stride, count);
    largest = vmax_u16(largest, vand_u16(halves[i], vdup_n_u16(0x7FFF)));
  }
  const FoldScales fold = fold_scales(largest);
  FoldedBlock out;
  out.scales = vmulq_n_f32(fold.scales, scale);
  const float32x4_t magic = vdupq_n_f32(kMagic);
  for (int64_t q = 0; q < kQuads; ++q) {
    int32x4_t rounded[4];
    for (int64_t i = 0; i < 4; ++i) {
      const float32x4_t ratio = vmulq_f32(floats_of(halves[4 * q + i]), fold.inverses);
      rounded[i] = vreinterpretq_s32_f32(vfmaq_n_f32(magic, ratio, values[4 * q + i]));
    }
    out.quads[q] = join_bytes(rounded);
  }
  return out;
}

// One block of a row of x times the group `Lane` of the four that were folded. sums[n][p] has the
// outputs 2 (4p + j) + n.
template <int Lane>
inline void multiply_group(const uint8_t* bytes, int64_t stride, const FoldedBlock& b,
                           SlotSums& slot) {
  int32x4_t exact[2][4];
  for (auto& half : exact) {
    for (int32x4_t& sum : half) sum = vdupq_n_s32(0);
  }
  for (int64_t q = 0; q < kQuads; ++q) {
    int8x16_t rows[4], packed[4];
    for (int64_t i = 0; i < 4; ++i) rows[i] = load_16(bytes + (4 * q + i) * stride);
    interleave(rows, packed);
    for (int p = 0; p < 4; ++p) {
      exact[0][p] = vdotq_laneq_s32(exact[0][p], low_nibbles_16(packed[p]), b.quads[q], Lane);
      exact[1][p] = vdotq_laneq_s32(exact[1][p], high_nibbles_16(packed[p]), b.quads[q], Lane);
    }
  }
  for (int n = 0; n < 2; ++n) {
    for (int p = 0; p < 4; ++p) {
      const float32x4_t product = vmulq_laneq_f32(float_of_16(exact[n][p]), b.scales, Lane);
      slot.sums[n][p] = vaddq_f32(slot.sums[n][p], product);
    }
  }
}

// One slot, up to kPassGroups groups from `begin` on.
void gemv_pass(const Int4Matrix& w, const float* values, const float* scales, int64_t begin,
               int64_t end, float* y) {
  SlotSums sums[kPassGroups];
  for (int64_t g = 0; g < end - begin; ++g) sums[g] = SlotSums{};
  const int64_t row = w.columns / 2, scale_row = w.columns / kGroupSize * 2;
  for (int64_t input = 0; input < w.rows; input += kGroupSize) {
    for (int64_t group = begin; group < end; group += kLanes) {
      const int64_t count = smaller(kLanes, end - group);
      const FoldedBlock b = fold_block(row_scales(w, input) + 2 * group, scale_row, count,
                                       values + input, scales[input / kGroupSize]);
      for_lanes([&](auto lane) {
        constexpr int g = decltype(lane)::value;
        if (g >= count) return;
        const uint8_t* bytes = row_bytes(w, input) + (group + g) * (kGroupSize / 2);
        multiply_group<g>(bytes, row, b, sums[group - begin + g]);
      });
    }
  }
  for (int64_t g = 0; g < end - begin; ++g) store_outputs(sums[g], y + (begin + g) * kGroupSize);
}

}  // namespace

void neon_expert_gemv(const Int4Matrix& w_IO, const ScaledRows& x_TI, const int32_t* rows_S,
                      int64_t slots, int64_t begin, int64_t end, float* y_SO) {
  for (int64_t s = 0; s < slots; ++s) {
    const float* values = x_TI.values + rows_S[s] * x_TI.width;
    const float* scales = x_TI.scales + rows_S[s] * (x_TI.width / kGroupSize);
    for (int64_t first = begin; first < end; first += kPassGroups) {
      gemv_pass(w_IO, values, scales, first, smaller(end, first + kPassGroups),
                y_SO + s * w_IO.columns);
    }
  }
}

void neon_dotprod_expert_int8(const Int4Matrix& w_IO, const ScaledRows& x_TI,
                              const int32_t* rows_S, int64_t slots, int64_t begin, int64_t end,
                              float* y_SO) {
  const auto multiply = slots <= kNeonGemvSlots ? neon_expert_gemv : expert_gemm<DotExpert>;
  multiply(w_IO, x_TI, rows_S, slots, begin, end, y_SO);
}

}  // namespace mobilemoe
