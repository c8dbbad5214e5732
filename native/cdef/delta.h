#define NC_DELTA_SPARE ...

size_t nc_delta_encode(const uint8_t *content, const uint8_t *base, size_t size, uint8_t *ret_delta,
                       size_t capacity);
int nc_delta_decode(const uint8_t *delta, size_t delta_size, const uint8_t *base,
                    uint8_t *ret_content, size_t size, struct nc_err *err);
