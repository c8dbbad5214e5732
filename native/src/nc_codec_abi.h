/* The parts of libzstd's and liblz4's interfaces that this extension uses, declared here: see
 * nc_crypto_abi.h for why. Only what zstd 1.4.0 and lz4 1.9.0 declare stable, and opaque structs.
 */
#ifndef NC_CODEC_ABI_H
#define NC_CODEC_ABI_H

#include <stddef.h>

struct ZSTD_CCtx_s;
struct ZSTD_DCtx_s;

/* X(name, return type, parameters) */
#define NC_CODEC_ZSTD_SYMBOLS(X)                                                                   \
    X(ZSTD_versionString, const char *, (void))                                                    \
    X(ZSTD_isError, unsigned, (size_t code))                                                       \
    X(ZSTD_getErrorName, const char *, (size_t code))                                              \
    X(ZSTD_getErrorCode, int, (size_t code))                                                       \
    X(ZSTD_createCCtx, struct ZSTD_CCtx_s *, (void))                                               \
    X(ZSTD_freeCCtx, size_t, (struct ZSTD_CCtx_s * context))                                       \
    X(ZSTD_CCtx_setParameter, size_t, (struct ZSTD_CCtx_s * context, int parameter, int value))    \
    X(ZSTD_compress2, size_t,                                                                      \
      (struct ZSTD_CCtx_s * context, void *out, size_t capacity, const void *in, size_t size))     \
    X(ZSTD_createDCtx, struct ZSTD_DCtx_s *, (void))                                               \
    X(ZSTD_freeDCtx, size_t, (struct ZSTD_DCtx_s * context))                                       \
    X(ZSTD_DCtx_setParameter, size_t, (struct ZSTD_DCtx_s * context, int parameter, int value))    \
    X(ZSTD_decompressDCtx, size_t,                                                                 \
      (struct ZSTD_DCtx_s * context, void *out, size_t capacity, const void *in, size_t size))     \
    X(ZSTD_getFrameContentSize, unsigned long long, (const void *in, size_t size))                 \
    X(ZSTD_findFrameCompressedSize, size_t, (const void *in, size_t size))

#define NC_CODEC_LZ4_SYMBOLS(X)                                                                    \
    X(LZ4_versionString, const char *, (void))                                                     \
    X(LZ4_sizeofState, int, (void))                                                                \
    X(LZ4_compress_fast_extState, int,                                                             \
      (void *state, const char *in, char *out, int size, int capacity, int acceleration))          \
    X(LZ4_decompress_safe, int, (const char *in, char *out, int size, int capacity))

/* Values of enumerations. */
#define NC_ZSTD_C_LEVEL 100
#define NC_ZSTD_C_WINDOW_LOG 101
#define NC_ZSTD_C_CONTENT_SIZE 200
#define NC_ZSTD_C_CHECKSUM 201
#define NC_ZSTD_C_DICTIONARY_ID 202
#define NC_ZSTD_D_WINDOW_LOG_MAX 100
#define NC_ZSTD_ERROR_MEMORY 64
#define NC_ZSTD_ERROR_TOO_SMALL 70
#define NC_ZSTD_SIZE_UNKNOWN (0ULL - 1)
#define NC_ZSTD_SIZE_ERROR (0ULL - 2)

#endif
