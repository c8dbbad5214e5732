struct nc_cdc {
    uint32_t minimum;
    uint32_t average;
    uint32_t maximum;
};

int nc_cdc_check(const struct nc_cdc *cdc, struct nc_err *err);
size_t nc_cdc_ends(const struct nc_cdc *cdc, const uint8_t *data, size_t size, bool last,
                   size_t *ret_ends, size_t capacity);
