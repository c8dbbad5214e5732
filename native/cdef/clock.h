struct nc_clock {
    int synchronised;
    int status;
    int64_t offset_ns;
    int64_t estimated_us;
    int64_t maximum_us;
    int tai_offset;
};

int nc_clock_read(struct nc_clock *ret_clock, struct nc_err *err);
