/* Holds the declarations of nc_codec_abi.h against the libraries' own headers: this file is only
 * compiled, with -Werror, and only where the headers are installed. */
#include <lz4.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "../src/nc_codec_abi.h"

#define X(name, type, parameters) extern type(*check_##name) parameters;
NC_CODEC_ZSTD_SYMBOLS(X)
NC_CODEC_LZ4_SYMBOLS(X)
#undef X

/* An enum without negative values is compatible with the unsigned int it is declared as. */
#define X(name, type, parameters) type(*check_##name) parameters = &name;
NC_CODEC_ZSTD_SYMBOLS(X)
NC_CODEC_LZ4_SYMBOLS(X)
#undef X

#define SAME(ours, theirs) _Static_assert((ours) == (theirs), #theirs)

SAME(NC_CODEC_ZSTD_C_LEVEL, ZSTD_c_compressionLevel);
SAME(NC_CODEC_ZSTD_C_CONTENT_SIZE, ZSTD_c_contentSizeFlag);
SAME(NC_CODEC_ZSTD_C_CHECKSUM, ZSTD_c_checksumFlag);
SAME(NC_CODEC_ZSTD_C_DICT_ID, ZSTD_c_dictIDFlag);
SAME(NC_CODEC_ZSTD_D_WINDOW_LOG_MAX, ZSTD_d_windowLogMax);
SAME(NC_CODEC_ZSTD_CONTENTSIZE_UNKNOWN, ZSTD_CONTENTSIZE_UNKNOWN);
SAME(NC_CODEC_ZSTD_CONTENTSIZE_ERROR, ZSTD_CONTENTSIZE_ERROR);
SAME(NC_CODEC_ZSTD_ERROR_MEMORY_ALLOCATION, ZSTD_error_memory_allocation);
SAME(NC_CODEC_ZSTD_ERROR_DST_SIZE_TOO_SMALL, ZSTD_error_dstSize_tooSmall);
