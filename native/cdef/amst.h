struct nc_amst;
struct nc_amst_link;
struct nc_amst_object;

struct nc_amst_options {
    uint32_t threads;
    uint64_t limit_bps;
    uint32_t encode_cpu;
};

struct nc_amst_event {
    int kind;
    int code;
    int os_errno;
    int refused;
    uint32_t stream;
    uint64_t link;
    uint64_t object;
    char why[...];
};

#define NC_AMST_STREAM_UP ...
#define NC_AMST_STREAM_LOST ...
#define NC_AMST_STREAM_CLOSED ...
#define NC_AMST_OBJECT_DONE ...
#define NC_AMST_OBJECT_FAILED ...
#define NC_AMST_OBJECT_ENDED ...
#define NC_AMST_LINK_ENDED ...

int nc_amst_open(const struct nc_amst_options *options, struct nc_amst **ret_engine,
                 struct nc_err *err);
void nc_amst_close(struct nc_amst *engine);
int nc_amst_event_fd(const struct nc_amst *engine);
void nc_amst_limit(struct nc_amst *engine, uint64_t limit_bps);
size_t nc_amst_poll(struct nc_amst *engine, struct nc_amst_event *ret_events, size_t capacity);

struct nc_amst_link_options {
    uint64_t tag;
    uint8_t id[16];
    uint8_t secret[32];
    uint8_t context[32];
    int initiator;
    int encrypt;
    uint32_t max_chunk;
    uint64_t send_window;
    uint64_t receive_window;
    uint32_t codecs;
    uint64_t link_bps;
};

#define NC_AMST_DELTA ...

int nc_amst_link_open(struct nc_amst *engine, const struct nc_amst_link_options *options,
                      struct nc_amst_link **ret_link, struct nc_err *err);
int nc_amst_link_dialled(struct nc_amst_link *link, int fd, uint32_t stream_id, struct nc_err *err);
int nc_amst_link_accepted(struct nc_amst_link *link, int fd, const uint8_t *hello, size_t size,
                          struct nc_err *err);
int nc_amst_link_rdma(struct nc_amst_link *link, struct nc_rdma_channel *channel,
                      uint32_t stream_id, struct nc_err *err);
int nc_amst_link_retire(struct nc_amst_link *link, uint32_t stream_id, struct nc_err *err);
void nc_amst_link_limit(struct nc_amst_link *link, uint64_t limit_bps);
void nc_amst_link_pace(struct nc_amst_link *link, uint64_t pace_bps);
void nc_amst_link_senders(struct nc_amst_link *link, uint32_t most);
int nc_amst_link_weight(struct nc_amst_link *link, uint32_t class, uint32_t weight,
                        struct nc_err *err);
int nc_amst_link_congestion(struct nc_amst_link *link, uint32_t stream_id, const char *name,
                            struct nc_err *err);
void nc_amst_link_abort(struct nc_amst_link *link);
void nc_amst_link_free(struct nc_amst_link *link);

struct nc_amst_link_info {
    uint64_t sent_bytes;
    uint64_t received_bytes;
    uint64_t wire_sent_bytes;
    uint64_t wire_received_bytes;
    uint64_t resent_bytes;
    uint64_t duplicate_bytes;
    uint64_t in_flight_bytes;
    uint64_t hedged_chunks;
    uint64_t bad_frames;
    uint64_t limited_ns;
    uint64_t starved_ns;
    uint64_t window_ns;
    uint32_t streams;
    uint32_t rekeys;
};
void nc_amst_link_info(struct nc_amst_link *link, struct nc_amst_link_info *ret_info);

struct nc_amst_stream_info {
    uint32_t id;
    int state;
    int mover;
    uint32_t epoch_sent;
    uint64_t sent_bytes;
    uint64_t received_bytes;
    uint64_t wire_sent_bytes;
    uint64_t wire_received_bytes;
    uint64_t in_flight_bytes;
    uint32_t rtt_us;
    uint32_t rttvar_us;
    uint32_t min_rtt_us;
    uint32_t base_rtt_us;
    uint32_t snd_cwnd;
    uint32_t snd_mss;
    uint32_t unsent_bytes;
    uint32_t total_retrans;
    uint32_t segments_out;
    uint32_t needless_retrans;
    uint32_t delivered;
    uint32_t delivered_ce;
    int ecn;
    int app_limited;
    uint64_t acked_bytes;
    uint64_t delivery_rate;
    uint64_t pacing_rate;
    uint64_t busy_us;
    uint64_t rwnd_limited_us;
    uint64_t sndbuf_limited_us;
    char congestion[16];
};
void nc_amst_link_streams(struct nc_amst_link *link, struct nc_amst_stream_info *ret_streams,
                          size_t capacity, size_t *ret_count);

struct nc_amst_coding {
    int policy;
    int codec;
    int level;
    int level_min;
    int level_max;
};
struct nc_amst_range {
    uint64_t offset;
    uint64_t size;
};

struct nc_amst_source {
    uint64_t tag;
    uint32_t number;
    uint32_t generation;
    int fd;
    const void *memory;
    uint64_t size;
    uint32_t chunk;
    uint32_t priority;
    int sparse;
    int stable;
    uint64_t limit_bps;
    const uint8_t *have;
    const uint32_t *leaves;
    struct nc_amst_coding coding;
    uint32_t base_id;
    int base_fd;
    const void *base_memory;
    const struct nc_amst_range *held;
    size_t held_count;
};
struct nc_amst_target {
    uint64_t tag;
    uint32_t number;
    uint32_t generation;
    int fd;
    void *memory;
    uint64_t size;
    uint32_t chunk;
    int sparse;
    const uint8_t *have;
    const uint32_t *leaves;
    uint32_t base_id;
    int base_fd;
    const void *base_memory;
};

int nc_amst_send(struct nc_amst_link *link, const struct nc_amst_source *source,
                 struct nc_amst_object **ret_object, struct nc_err *err);
int nc_amst_receive(struct nc_amst_link *link, const struct nc_amst_target *target,
                    struct nc_amst_object **ret_object, struct nc_err *err);
void nc_amst_object_pause(struct nc_amst_object *object, int paused);
void nc_amst_object_limit(struct nc_amst_object *object, uint64_t limit_bps);
void nc_amst_object_priority(struct nc_amst_object *object, uint32_t priority);
void nc_amst_object_abort(struct nc_amst_object *object);
void nc_amst_object_free(struct nc_amst_object *object);

struct nc_amst_object_info {
    uint64_t done_bytes;
    uint64_t moved_bytes;
    uint64_t zero_bytes;
    uint64_t resent_bytes;
    uint64_t done_chunks;
    uint64_t chunks;
    int finished;
    int code;
    int os_errno;
};
void nc_amst_object_info(struct nc_amst_object *object, struct nc_amst_object_info *ret_info);

struct nc_amst_change {
    uint64_t at_ns;
    int from;
    int to;
    int why;
    int content_class;
    uint64_t link_bps;
    uint64_t encode_bps;
    double ratio;
};
struct nc_amst_coding_info {
    uint64_t zero_chunks;
    uint64_t zero_bytes;
    uint64_t delta_chunks;
    uint64_t delta_bytes;
    uint64_t delta_wire_bytes;
    uint64_t chunks[3];
    uint64_t bytes[3];
    uint64_t wire_bytes[3];
    uint64_t refused_bases;
    uint64_t budget_chunks;
    uint64_t cpu_ns[7];
    uint64_t change_count;
    struct nc_amst_change changes[16];
};
void nc_amst_object_coding(struct nc_amst_object *object, struct nc_amst_coding_info *ret_info);
int nc_amst_object_bitmap(struct nc_amst_object *object, uint8_t *ret_bits, size_t size,
                          struct nc_err *err);
int nc_amst_object_leaves(struct nc_amst_object *object, uint64_t first, size_t count,
                          uint32_t *ret_leaves, struct nc_err *err);

int nc_amst_pipe_send(struct nc_amst_link *link, uint64_t tag, uint32_t number, int fd,
                      uint32_t chunk, uint32_t priority, uint64_t window,
                      struct nc_amst_object **ret_object, struct nc_err *err);
int nc_amst_pipe_receive(struct nc_amst_link *link, uint64_t tag, uint32_t number, int fd,
                         uint64_t window, struct nc_amst_object **ret_object, struct nc_err *err);
