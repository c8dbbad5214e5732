#define NC_CODEC_COUNT ...

unsigned nc_codec_available(void);
const char *nc_codec_version(int id);
const char *nc_codec_missing(int id);
