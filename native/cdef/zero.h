bool nc_is_zero(const uint8_t *data, size_t size);
