struct nc_rdma;
struct nc_rdma_channel;

struct nc_rdma_options {
    const char *library;
    const char *device;
    int port;
    int gid_index;
};

struct nc_rdma_peer {
    uint8_t gid[16];
    uint32_t qpn;
    uint32_t psn;
    uint32_t rkey;
    uint32_t slots;
    uint32_t slot_bytes;
    uint32_t mtu;
    uint64_t address;
    uint16_t lid;
};

struct nc_rdma_message {
    const uint8_t *data;
    uint32_t size;
    uint32_t slot;
};

int nc_rdma_open(const struct nc_rdma_options *options, struct nc_rdma **ret_rdma,
                 struct nc_err *err);
void nc_rdma_close(struct nc_rdma *rdma);
const char *nc_rdma_device_name(const struct nc_rdma *rdma);
int nc_rdma_lost(struct nc_rdma *rdma);
int nc_rdma_channel_open(struct nc_rdma *rdma, uint32_t slots, uint32_t slot_bytes,
                         struct nc_rdma_channel **ret_channel, struct nc_err *err);
void nc_rdma_channel_close(struct nc_rdma_channel *channel);
void nc_rdma_channel_local(const struct nc_rdma_channel *channel, struct nc_rdma_peer *ret_peer);
int nc_rdma_channel_connect(struct nc_rdma_channel *channel, const struct nc_rdma_peer *peer,
                            struct nc_err *err);
int nc_rdma_channel_fd(const struct nc_rdma_channel *channel);
uint8_t *nc_rdma_channel_acquire(struct nc_rdma_channel *channel, uint32_t *ret_slot);
void nc_rdma_channel_discard(struct nc_rdma_channel *channel, uint32_t slot);
int nc_rdma_channel_post(struct nc_rdma_channel *channel, uint32_t slot, uint32_t size,
                         struct nc_err *err);
int nc_rdma_channel_poll(struct nc_rdma_channel *channel, struct nc_rdma_message *ret_messages,
                         size_t capacity, size_t *ret_count, int *ret_room, struct nc_err *err);
int nc_rdma_channel_release(struct nc_rdma_channel *channel, uint32_t slot, struct nc_err *err);
