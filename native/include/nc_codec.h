/* General compressors behind one call: lz4 (block format) and zstd (one frame).
 *
 * libzstd.so.1 and liblz4.so.1 are loaded with dlopen at the first call that needs them: a machine
 * without one is a machine without that codec, no more. What is decoded comes from a peer: nothing
 * it declares is believed, and nothing is allocated or written because of it. */
#ifndef NC_CODEC_H
#define NC_CODEC_H

#include <stddef.h>
#include <stdint.h>

#include "nc_err.h"

enum nc_codec_id { NC_CODEC_RAW = 0, NC_CODEC_LZ4 = 1, NC_CODEC_ZSTD = 2, NC_CODEC_COUNT };

/* Bytes of content of one call: the largest chunk. The window of zstd is bounded by it, and so is
 * the memory of a context: see nc_codec_memory. */
#define NC_CODEC_MAX_CONTENT ((size_t)4 << 20)

#define NC_CODEC_LEVEL_MIN (-7)
#define NC_CODEC_LEVEL_MAX 19

/* Loads the library of `id`; soname NULL: the default one. Thread-safe; once it succeeded, calls
 * are free and a soname is ignored. What follows does it. UNAVAILABLE: no such library, or one that
 * lacks a function. */
int nc_codec_load(int id, const char *soname, struct nc_err *err);
/* Bit (1u << id) of each codec there is; RAW always. */
unsigned nc_codec_available(void);
/* "1.5.4"; "" where the library is missing, and for RAW. */
const char *nc_codec_version(int id);
/* Why it is missing; "" where it is not, and for RAW. */
const char *nc_codec_missing(int id);

/* The contexts of one thread: made when first used, reused, freed at the end. */
struct nc_codec;

int nc_codec_open(struct nc_codec **ret_codec, struct nc_err *err);
/* Takes NULL. */
void nc_codec_close(struct nc_codec *codec);
/* Bytes that the contexts hold now. Encoding 4 MiB with zstd, libzstd 1.5.4: 1 MiB up to level 3,
 * 4 up to 6, 13 at 9, 65 at 15; decoding: 100 KiB. Memory is taken for the largest level and chunk
 * there was. lz4: 16 KiB. */
size_t nc_codec_memory(const struct nc_codec *codec);

/* *ret_size is 0, and the result OK, where the coded content does not fit in `capacity` (or just
 * so: the libraries ask for up to 20 bytes more than they use). Coded content is never larger than
 * size + size / 255 + 512.
 * Level: of zstd -7 to 19 (0 is 3); of lz4 its acceleration, 1 to 19: more is faster and coarser.
 * INVALID: another codec or level, no content or more than NC_CODEC_MAX_CONTENT. UNAVAILABLE where
 * the library is missing. */
int nc_codec_encode(struct nc_codec *codec, int id, int level, const uint8_t *content, size_t size,
                    uint8_t *ret_coded, size_t capacity, size_t *ret_size, struct nc_err *err);
/* Exactly `size` bytes come out, or INTEGRITY. Never writes beyond `size`; what is written where
 * it fails means nothing. A frame of zstd declares its size, has no dictionary, a window no larger
 * than its content, and is alone. INVALID and UNAVAILABLE as above. */
int nc_codec_decode(struct nc_codec *codec, int id, const uint8_t *coded, size_t coded_size,
                    uint8_t *ret_content, size_t size, struct nc_err *err);

#endif
