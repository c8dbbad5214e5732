#define NC_TCP_NAME_BYTES ...
#define NC_TCP_AVAILABLE ...
#define NC_TCP_ALLOWED ...
#define NC_TCP_DEFAULT ...

int nc_tcp_list(int which, char *ret_text, size_t size, struct nc_err *err);
int nc_tcp_probe(const char *name, struct nc_err *err);
int nc_tcp_set(int fd, const char *name, struct nc_err *err);
int nc_tcp_get(int fd, char *ret_name, size_t size, struct nc_err *err);

struct nc_tcp_info {
    uint32_t rtt_us;
    uint32_t rttvar_us;
    uint32_t min_rtt_us;
    uint32_t segments_out;
    uint32_t total_retrans;
    uint32_t needless_retrans;
    uint32_t delivered;
    uint32_t delivered_ce;
    int ecn;
    int app_limited;
    uint64_t delivery_rate;
};
int nc_tcp_info(int fd, struct nc_tcp_info *ret_info, struct nc_err *err);
