#define NC_FRAME_HEADER_BYTES ...
#define NC_FRAME_ACK_BYTES ...
#define NC_FRAME_HELLO_BYTES ...
#define NC_FRAME_MIN_CHUNK ...
#define NC_FRAME_MAX_CHUNK ...
#define NC_FRAME_MAX_CONTROL ...
#define NC_FRAME_MAX_ACKS ...
#define NC_FRAME_EPOCH_FRAMES ...
#define NC_FRAME_EPOCH_BYTES ...

struct nc_frame {
    uint8_t type;
    uint8_t flags;
    uint8_t codec;
    uint32_t stream;
    uint32_t epoch;
    uint64_t sequence;
    uint32_t object;
    uint32_t generation;
    uint64_t offset;
    uint32_t raw_size;
    uint32_t wire_size;
    uint32_t base;
};

struct nc_frame_ack {
    uint8_t kind;
    uint32_t object;
    uint32_t generation;
    uint64_t offset;
    uint64_t value;
};

struct nc_frame_key {
    uint8_t key[...];
    uint8_t iv[...];
};

void nc_frame_write(const struct nc_frame *frame, uint32_t seed, uint8_t *ret_header);
int nc_frame_read(const uint8_t *header, uint32_t seed, uint32_t max_chunk,
                  struct nc_frame *ret_frame, struct nc_err *err);
void nc_frame_ack_write(const struct nc_frame_ack *ack, uint8_t *ret_bytes);
int nc_frame_ack_read(const uint8_t *bytes, struct nc_frame_ack *ret_ack, struct nc_err *err);
uint64_t nc_frame_error_number(int code);
int nc_frame_error_code(uint64_t number);
int nc_frame_key(const uint8_t *secret, const uint8_t *context, int direction, uint32_t stream,
                 uint32_t epoch, struct nc_frame_key *ret_key, struct nc_err *err);
int nc_frame_seed(const uint8_t *secret, const uint8_t *context, uint32_t *ret_seed,
                  struct nc_err *err);
