/* Codecs of chunks: lz4 and zstd, from the libraries that the system has.
 *
 * libzstd and liblz4 are loaded with dlopen at the first use, so that neither their headers nor
 * they themselves are needed to build, and a node without one of them says so and goes on with the
 * other. */
#ifndef NC_CODEC_H
#define NC_CODEC_H

#include <stddef.h>
#include <stdint.h>

struct nc_err;
struct nc_codec;

/* On the wire: the codec byte of a frame. */
enum nc_codec_id { NC_CODEC_RAW = 0, NC_CODEC_LZ4 = 1, NC_CODEC_ZSTD = 2, NC_CODEC_COUNT };

#define NC_CODEC_LEVEL_MIN (-7)
#define NC_CODEC_LEVEL_MAX 19

/* Bit per nc_codec_id; RAW always. */
unsigned nc_codec_available(void);
/* Such as "1.5.4"; "" where the library is missing. */
const char *nc_codec_version(int id);
/* Why it is missing; "" where it is not. */
const char *nc_codec_missing(int id);

/* The contexts of one thread, made when they are first needed and used again. For chunks of 4 MiB
 * about 16 KiB for lz4, and for zstd 1 MiB at the fast levels to 40 MiB at level 19. */
int nc_codec_open(struct nc_codec **ret_codec, struct nc_err *err);
void nc_codec_close(struct nc_codec *codec); /* takes NULL */

/* Level: of zstd as its own, -7 to 19; of lz4 its acceleration, 1 the best. *ret_size is 0, with
 * OK, where it does not fit in `capacity`. UNAVAILABLE without the library, INVALID for other
 * levels. */
int nc_codec_encode(struct nc_codec *codec, int id, int level, const uint8_t *content, size_t size,
                    uint8_t *ret_coded, size_t capacity, size_t *ret_size, struct nc_err *err);
/* Exactly `size` bytes come out, or it is INTEGRITY with the reason. Nothing is allocated for what
 * the input declares: a frame of zstd that declares no size, another size, a window larger than one
 * of `size` bytes needs, a dictionary, or that something follows, is refused before it is read. */
int nc_codec_decode(struct nc_codec *codec, int id, const uint8_t *coded, size_t coded_size,
                    uint8_t *ret_content, size_t size, struct nc_err *err);

#endif
