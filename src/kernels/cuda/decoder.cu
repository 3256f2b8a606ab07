// What a decoder's forward pass does on a GPU between its matrix products, and how it draws tokens.
//
// Activations are bf16, the residual stream and all sums f32. Tokens of many sequences are packed: `Table` says where each
// token's sequence keeps its keys, so that one launch serves prompts being read, rows being decoded and texts being scored.

#include <cuda_bf16.h>
#include <math_constants.h>
#include <stdint.h>

typedef __nv_bfloat16 bf16;

// A view of the table that the host writes for each forward pass: per token its sequence, the place (in elements) of its
// row of keys, and its slot in that row; per sequence the length of its prefix and how far apart the key heads of prefix and
// row lie; per layer and sequence the addresses of the prefix's keys and values and of the row's.
struct Table {
    const int64_t *at;
    int tokens, sequences;

    __device__ int sequence(int token) const { return at[token]; }
    __device__ int64_t row(int token) const { return at[tokens + token]; }
    __device__ int slot(int token) const { return at[2 * tokens + token]; }
    __device__ const int64_t *of_sequences() const { return at + 3 * (int64_t)tokens; }
    __device__ int past(int sequence) const { return of_sequences()[sequence]; }
    __device__ int64_t prefix_stride(int sequence) const { return of_sequences()[sequences + sequence]; }
    __device__ int64_t row_stride(int sequence) const { return of_sequences()[2 * sequences + sequence]; }
    // 0, 1: keys and values of the prefix; 2, 3: of the row.
    __device__ bf16 *keys(int layer, int sequence, int which) const {
        return (bf16 *)of_sequences()[3 * sequences + 4 * (layer * (int64_t)sequences + sequence) + which];
    }
};

// The sum over the block, whose size is a power of two up to 1024; every thread gets it.
__device__ float block_sum(float x) {
    __shared__ float sums[1024];
    sums[threadIdx.x] = x;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    float sum = sums[0];
    __syncthreads();
    return sum;
}

// out = x / rms(x) · weight; a block a row.
extern "C" __global__ void rms_norm(const float *x, const float *weight, bf16 *out, int width, float epsilon) {
    x += (int64_t)blockIdx.x * width;
    out += (int64_t)blockIdx.x * width;
    float squares = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) squares += x[i] * x[i];
    float scale = rsqrtf(block_sum(squares) / width + epsilon);
    for (int i = threadIdx.x; i < width; i += blockDim.x) out[i] = __float2bfloat16(x[i] * scale * weight[i]);
}

// x += y / rms(y) · weight; a block a row.
extern "C" __global__ void add_normed(float *x, const bf16 *y, const float *weight, int width, float epsilon) {
    x += (int64_t)blockIdx.x * width;
    y += (int64_t)blockIdx.x * width;
    float squares = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float value = __bfloat162float(y[i]);
        squares += value * value;
    }
    float scale = rsqrtf(block_sum(squares) / width + epsilon);
    for (int i = threadIdx.x; i < width; i += blockDim.x) x[i] += __bfloat162float(y[i]) * scale * weight[i];
}

// activation(gate) · up, of rows [gate, up] of 2 · width.
extern "C" __global__ void gated(const bf16 *in, bf16 *out, int64_t count, int width, int gelu) {
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i >= count) return;
    const bf16 *row = in + i / width * 2 * width;
    float gate = __bfloat162float(row[i % width]), up = __bfloat162float(row[width + i % width]);
    if (gelu) {
        float inner = 0.7978845608f * (gate + 0.044715f * gate * gate * gate);
        gate = 0.5f * gate * (1 + tanhf(inner));
    } else {
        gate = gate / (1 + __expf(-gate));
    }
    out[i] = __float2bfloat16(gate * up);
}

// Queries, keys and values of a layer, [tokens, heads + 2 · key_heads, d], with their biases; norms of queries and keys, if
// the model has them; both rotated by their positions. Queries go to `q`, keys and values to their sequence's row. A block of
// d / 2 threads a head of a token.
extern "C" __global__ void heads(const bf16 *qkv, const float *bias, const float *q_norm, const float *k_norm,
                                 const float *cosines, const float *sines, const int64_t *at, int tokens, int sequences,
                                 int layer, int heads, int key_heads, float epsilon, bf16 *q) {
    Table table = {at, tokens, sequences};
    int token = blockIdx.x, head = blockIdx.y, i = threadIdx.x, half = blockDim.x, d = 2 * half;
    const bf16 *in = qkv + ((int64_t)token * gridDim.y + head) * d;
    float a = __bfloat162float(in[i]), b = __bfloat162float(in[i + half]);
    if (bias) {
        a += bias[head * d + i];
        b += bias[head * d + i + half];
    }
    const float *norm = head < heads ? q_norm : head < heads + key_heads ? k_norm : nullptr;
    if (norm) {
        float scale = rsqrtf(block_sum(a * a + b * b) / d + epsilon);
        a *= scale * norm[i];
        b *= scale * norm[i + half];
    }
    int sequence = table.sequence(token), slot = table.slot(token);
    if (head < heads + key_heads) {
        int64_t place = (int64_t)(table.past(sequence) + slot) * half + i;
        float c = cosines[place], s = sines[place], turned = a * c - b * s;
        b = b * c + a * s;
        a = turned;
    }
    bf16 *out;
    if (head < heads) {
        out = q + ((int64_t)token * heads + head) * d;
    } else {
        int which = head < heads + key_heads ? 2 : 3, key_head = (head - heads) % key_heads;
        out = table.keys(layer, sequence, which) + key_head * table.row_stride(sequence) + table.row(token) + (int64_t)slot * d;
    }
    out[i] = __float2bfloat16(a);
    out[i + half] = __float2bfloat16(b);
}

// c += a · b of a 16×16 and a 16×8 tile, a warp together (PTX ISA, mma.m16n8k16).
__device__ void multiply(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ uint32_t pack(float low, float high) {
    __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return *(uint32_t *)&both;
}

// 4 or 8 neighbours.
template <int N> __device__ uint4 load(const bf16 *at) {
    if (N == 8) return *(const uint4 *)at;
    uint2 x = *(const uint2 *)at;
    return make_uint4(x.x, x.y, 0, 0);
}

__device__ uint32_t word(const uint4 &x, int i) { return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w; }

// 16 rows of queries of one warp, and what it has summed of the keys so far. A lane stands for rows g and g + 8 (g = lane / 4).
//
// The order of a product's inner dimension is free, so lane c = lane % 4 reads 8 neighbours of each 32 elements of a query or
// key. So is the order of its columns: group g owns columns g · d/8 to (g + 1) · d/8 of the values.
template <int D> struct Rows {
    static constexpr int PAIRS = D / 32, COLUMNS = D / 8, AT_ONCE = COLUMNS < 8 ? COLUMNS : 8;

    uint4 q[PAIRS][2];
    int token[2];
    // Positions that a row sees: from `first` up to `end`.
    int first[2], end[2];
    float most[2], sum[2];
    float out[COLUMNS][4];

    // Adds 32 keys from `start` on, of `count`, whose first is at `position`. Only the rows of token `only` see them, unless it
    // is negative.
    __device__ void add(const bf16 *k, const bf16 *v, int start, int count, int position, int only, float scale) {
        int lane = threadIdx.x % 32, g = lane / 4, c = lane % 4;
        float s[4][4] = {};
#pragma unroll
        for (int tile = 0; tile < 4; tile++) {
            const bf16 *key = k + (int64_t)min(start + 8 * tile + g, count - 1) * D + 8 * c;
#pragma unroll
            for (int pair = 0; pair < PAIRS; pair++) {
                uint4 x = *(const uint4 *)(key + 32 * pair);
                multiply(s[tile], q[pair][0].x, q[pair][1].x, q[pair][0].y, q[pair][1].y, x.x, x.y);
                multiply(s[tile], q[pair][0].z, q[pair][1].z, q[pair][0].w, q[pair][1].w, x.z, x.w);
            }
        }
#pragma unroll
        for (int row = 0; row < 2; row++) {
            bool sees = only < 0 || token[row] == only;
            float top = -CUDART_INF_F;
#pragma unroll
            for (int tile = 0; tile < 4; tile++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int key = start + 8 * tile + 2 * c + i;
                    bool seen = sees && key < count && position + key >= first[row] && position + key < end[row];
                    float &x = s[tile][2 * row + i];
                    x = seen ? x * scale : -CUDART_INF_F;
                    top = fmaxf(top, x);
                }
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
            float most_now = fmaxf(most[row], top);
            float base = most_now == -CUDART_INF_F ? 0 : most_now;
            float keep = exp2f(most[row] - base);
            most[row] = most_now;
            sum[row] *= keep;
#pragma unroll
            for (int column = 0; column < COLUMNS; column++) {
                out[column][2 * row] *= keep;
                out[column][2 * row + 1] *= keep;
            }
#pragma unroll
            for (int tile = 0; tile < 4; tile++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float &x = s[tile][2 * row + i];
                    x = exp2f(x - base);
                    sum[row] += x;
                }
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            uint32_t a0 = pack(s[2 * half][0], s[2 * half][1]), a1 = pack(s[2 * half][2], s[2 * half][3]);
            uint32_t a2 = pack(s[2 * half + 1][0], s[2 * half + 1][1]), a3 = pack(s[2 * half + 1][2], s[2 * half + 1][3]);
            const bf16 *value[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int key = start + 16 * half + 2 * c + (i & 1) + 8 * (i >> 1);
                value[i] = v + (int64_t)min(key, count - 1) * D + g * COLUMNS;
            }
#pragma unroll
            for (int from = 0; from < COLUMNS; from += AT_ONCE) {
                uint4 x[4];
#pragma unroll
                for (int i = 0; i < 4; i++) x[i] = load<AT_ONCE>(value[i] + from);
#pragma unroll
                for (int i = 0; i < AT_ONCE / 2; i++) {
                    uint32_t v0 = word(x[0], i), v1 = word(x[1], i), v2 = word(x[2], i), v3 = word(x[3], i);
                    multiply(out[from + 2 * i], a0, a1, a2, a3, __byte_perm(v0, v1, 0x5410), __byte_perm(v2, v3, 0x5410));
                    multiply(out[from + 2 * i + 1], a0, a1, a2, a3, __byte_perm(v0, v1, 0x7632), __byte_perm(v2, v3, 0x7632));
                }
            }
        }
    }
};

// Attention of tiles, each some neighbouring tokens of one sequence with the query heads that share a key head, over the
// sequence's prefix and the tokens' own rows. `scale` is in units of log2; a positive `window` is how many positions a query
// sees, its own included. Blocks (tile, key head) of four warps of 16 query rows each: tiles have up to 64 rows; or, in two
// `parts`, up to 32, and one warp takes the even blocks of 32 keys and another the odd ones, as there are few tiles.
template <int D>
__device__ void attend(const bf16 *q, const int64_t *at, int tokens, int sequences, const int *tiles, int parts, int layer, int group,
                       float scale, int window, bf16 *result) {
    constexpr int COLUMNS = Rows<D>::COLUMNS;
    Table table = {at, tokens, sequences};
    int key_heads = gridDim.y, head = blockIdx.y;
    int first_token = tiles[2 * blockIdx.x], count = tiles[2 * blockIdx.x + 1];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, c = lane % 4;
    int row_warps = 4 / parts, first_row = warp % row_warps * 16, part = warp / row_warps;
    int sequence = table.sequence(first_token), past = table.past(sequence);

    Rows<D> rows;
    int64_t place[2];
#pragma unroll
    for (int row = 0; row < 2; row++) {
        int i = first_row + g + 8 * row, token = i / group;
        bool real = token < count;
        rows.token[row] = real ? token : -2;
        place[row] = real ? (((int64_t)(first_token + token) * key_heads + head) * group + i % group) * D : -1;
        int position = real ? past + table.slot(first_token + token) : -1;
        rows.end[row] = position + 1;
        rows.first[row] = window > 0 ? max(0, position - window + 1) : 0;
        rows.most[row] = -CUDART_INF_F;
        rows.sum[row] = 0;
#pragma unroll
        for (int pair = 0; pair < Rows<D>::PAIRS; pair++)
            rows.q[pair][row] = real ? *(const uint4 *)(q + place[row] + 32 * pair + 8 * c) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int column = 0; column < COLUMNS; column++)
#pragma unroll
        for (int i = 0; i < 4; i++) rows.out[column][i] = 0;

    int turn = 0;
    auto add = [&](const bf16 *k, const bf16 *v, int keys, int position, int only) {
        int least = window > 0 ? past + table.slot(first_token) - window + 1 - position : 0;
        for (int start = max(0, least) / 32 * 32; start < keys; start += 32)
            if (turn++ % parts == part) rows.add(k, v, start, keys, position, only, scale);
    };
    if (first_row < count * group) {
        if (past > 0) {
            int64_t start = head * table.prefix_stride(sequence);
            add(table.keys(layer, sequence, 0) + start, table.keys(layer, sequence, 1) + start, past, 0, -1);
        }
        const bf16 *k = table.keys(layer, sequence, 2) + head * table.row_stride(sequence);
        const bf16 *v = table.keys(layer, sequence, 3) + head * table.row_stride(sequence);
        int last = first_token + count - 1;
        if (table.row(first_token) == table.row(last)) {
            int64_t row = table.row(last);
            add(k + row, v + row, table.slot(last) + 1, past, -1);
        } else {
            for (int token = first_row / group; token < min(count, (first_row + 15) / group + 1); token++) {
                int64_t row = table.row(first_token + token);
                add(k + row, v + row, table.slot(first_token + token) + 1, past, token);
            }
        }
    }

    // The sums are over the lanes' own keys so far.
#pragma unroll
    for (int row = 0; row < 2; row++) {
        rows.sum[row] += __shfl_xor_sync(~0u, rows.sum[row], 1);
        rows.sum[row] += __shfl_xor_sync(~0u, rows.sum[row], 2);
    }
    __shared__ float others[2][COLUMNS * 4 + 4][32];
    float(*other)[32] = others[warp & 1];
    if (part == 1) {
#pragma unroll
        for (int column = 0; column < COLUMNS; column++)
#pragma unroll
            for (int i = 0; i < 4; i++) other[4 * column + i][lane] = rows.out[column][i];
#pragma unroll
        for (int row = 0; row < 2; row++) {
            other[4 * COLUMNS + row][lane] = rows.most[row];
            other[4 * COLUMNS + 2 + row][lane] = rows.sum[row];
        }
    }
    if (parts > 1) __syncthreads();
    if (part == 1) return;
#pragma unroll
    for (int row = 0; row < 2; row++) {
        if (place[row] < 0) continue;
        float keep = 1, add = 0, sum = rows.sum[row];
        if (parts > 1) {
            float most = other[4 * COLUMNS + row][lane], top = fmaxf(most, rows.most[row]);
            keep = exp2f(rows.most[row] - top);
            add = exp2f(most - top);
            sum = sum * keep + other[4 * COLUMNS + 2 + row][lane] * add;
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            // Column 2c + i of every tile of 8: neighbours in memory.
            bf16 *to = result + place[row] + (2 * c + i) * COLUMNS;
#pragma unroll
            for (int column = 0; column < COLUMNS; column += 2) {
                float x[2];
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    int e = 2 * row + i;
                    x[j] = rows.out[column + j][e];
                    if (parts > 1) x[j] = x[j] * keep + other[4 * (column + j) + e][lane] * add;
                }
                *(uint32_t *)(to + column) = pack(x[0] / sum, x[1] / sum);
            }
        }
    }
}

#define ATTEND(D)                                                                                                            \
    extern "C" __global__ void __launch_bounds__(128) attend_##D(const bf16 *q, const int64_t *at, int tokens, int sequences, \
                                                                const int *tiles, int parts, int layer, int group,            \
                                                                float scale, int window, bf16 *result) {                      \
        attend<D>(q, at, tokens, sequences, tiles, parts, layer, group, scale, window, result);                               \
    }
ATTEND(32)
ATTEND(64)
ATTEND(128)
ATTEND(256)

// The largest of a row, by all threads of the block (a multiple of 32): every thread gets it, or NaN if one is.
__device__ float row_max(const float *row, int width) {
    __shared__ float tops[32];
    float top = -CUDART_INF_F;
    bool wrong = false;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        wrong |= isnan(row[i]);
        top = fmaxf(top, row[i]);
    }
    for (int lanes = 16; lanes > 0; lanes /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, lanes));
    if (threadIdx.x % 32 == 0) tops[threadIdx.x / 32] = top;
    wrong = __syncthreads_or(wrong);
    for (int i = 0; i < blockDim.x / 32; i++) top = fmaxf(top, tops[i]);
    __syncthreads();
    return wrong ? CUDART_NAN_F : top;
}

// Weights are counted in units of 2^-40 of the largest, so that their sums do not depend on the order.
__device__ unsigned long long units(float distance) { return (unsigned long long)(__expf(-distance) * 1099511627776.0f); }

// How far below the largest a logit lies, in steps of 2^-15; weights beyond 32 are 0.
constexpr int BINS = 1024;
__device__ int step(float distance) { return (int)fminf(distance * 32768.0f, (float)(BINS * BINS - 1)); }

// The bin where the weights of those before it and its own reach `wanted`, and the weights before it.
__device__ int crossing(const unsigned long long *bins, unsigned long long before, double wanted, unsigned long long *reached) {
    for (int bin = 0; bin < BINS; bin++) {
        if ((double)(before + bins[bin]) >= wanted || bin == BINS - 1) {
            *reached = before;
            return bin;
        }
        before += bins[bin];
    }
    return BINS - 1;
}

// A token of the nucleus of each draw's row of logits: as `draw` in sample.rs, but for tokens whose logits are within a step.
// `scales` are 1 / temperature, or 0 for the most probable token. A block of 512 threads a draw; 2^32 − 1 if the logits are not
// finite.
extern "C" __global__ void __launch_bounds__(512) draw(const float *logits, int width, const uint32_t *row_of,
                                                       const float *scales, const float *shares, const double *uniforms,
                                                       uint32_t *tokens) {
    __shared__ unsigned long long bins[BINS], chunks[16];
    __shared__ unsigned long long before, kept;
    __shared__ int cut, found;
    const float *row = logits + (int64_t)row_of[blockIdx.x] * width;
    float top = row_max(row, width), scale = scales[blockIdx.x];
    if (!isfinite(top)) {
        if (threadIdx.x == 0) tokens[blockIdx.x] = ~0u;
        return;
    }
    if (scale == 0) {
        if (threadIdx.x == 0) found = width;
        __syncthreads();
        for (int i = threadIdx.x; i < width; i += blockDim.x)
            if (row[i] == top) atomicMin(&found, i);
        __syncthreads();
        if (threadIdx.x == 0) tokens[blockIdx.x] = found;
        return;
    }
    // The bin in which the nucleus ends, and then its step.
    for (int level = 0; level < 2; level++) {
        for (int i = threadIdx.x; i < BINS; i += blockDim.x) bins[i] = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < width; i += blockDim.x) {
            float distance = (top - row[i]) * scale;
            int at = step(distance);
            unsigned long long weight = units(distance);
            if (weight == 0) continue;
            if (level == 0) atomicAdd(&bins[at / BINS], weight);
            else if (at / BINS == cut) atomicAdd(&bins[at % BINS], weight);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            if (level == 0) {
                unsigned long long total = 0;
                for (int bin = 0; bin < BINS; bin++) total += bins[bin];
                kept = total;
                cut = crossing(bins, 0, shares[blockIdx.x] * (double)total, &before);
            } else {
                unsigned long long reached;
                int bin = crossing(bins, before, shares[blockIdx.x] * (double)kept, &reached);
                kept = reached + bins[bin];
                cut = cut * BINS + bin;
            }
        }
        __syncthreads();
    }
    // The nucleus in the order of ids: a warp a piece of the row.
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, piece = (width + 511) / 512 * 32;
    int start = warp * piece, end = min(width, start + piece);
    auto weigh = [&](int i) {
        float distance = (top - row[i]) * scale;
        return step(distance) <= cut ? units(distance) : 0ull;
    };
    unsigned long long sum = 0;
    for (int i = start + lane; i < end; i += 32) sum += weigh(i);
    for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(~0u, sum, lanes);
    if (lane == 0) chunks[warp] = sum;
    __syncthreads();
    unsigned long long target = (unsigned long long)(uniforms[blockIdx.x] * (double)kept);
    if (target >= kept) target = kept - 1;
    unsigned long long passed = 0;
    for (int i = 0; i < warp; i++) passed += chunks[i];
    if (target < passed || target >= passed + sum) return;
    for (int i = start; i < end; i += 32) {
        unsigned long long weight = i + lane < end ? weigh(i + lane) : 0, up_to = weight;
        for (int lanes = 1; lanes < 32; lanes *= 2) {
            unsigned long long lower = __shfl_up_sync(~0u, up_to, lanes);
            if (lane >= lanes) up_to += lower;
        }
        bool here = target < passed + up_to && target >= passed + up_to - weight;
        if (here) tokens[blockIdx.x] = i + lane;
        if (__any_sync(~0u, here)) return;
        passed += __shfl_sync(~0u, up_to, 31);
    }
}

// log softmax(logits)[token] of targets (row, token); a block of 512 threads a target.
extern "C" __global__ void __launch_bounds__(512) log_probability(const float *logits, int width, const uint32_t *row_of,
                                                                  const uint32_t *wanted, float *logs) {
    const float *row = logits + (int64_t)row_of[blockIdx.x] * width;
    float top = row_max(row, width), sum = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) sum += __expf(row[i] - top);
    sum = block_sum(sum);
    if (threadIdx.x == 0) logs[blockIdx.x] = row[wanted[blockIdx.x]] - top - logf(sum);
}
