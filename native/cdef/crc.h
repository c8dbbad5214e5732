uint32_t nc_crc32(uint32_t crc, const void *data, size_t size);
uint32_t nc_crc32_zeros(uint32_t crc, uint64_t size);
const char *nc_crc32_kernel(void);
uint32_t nc_crc32_tables(uint32_t crc, const void *data, size_t size);
