/*
 * One direction of the wide-area path that the relay pretends to be, and the TCP flows on it.
 * No system call in here: packets and times come from the caller, chance from the seed.
 *
 *   arrive -> loss -> policing by flow -> queue before the rate cap -> delay line -> due
 */
#ifndef RELAY_LINK_H
#define RELAY_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NO_PACKET UINT32_MAX
#define FLOW_LIMIT 4096u
#define RULE_LIMIT 64u

/* A flow's two ends and a packet's two ways share these: what end A sends travels A_TO_B. */
enum direction { A_TO_B, B_TO_A, DIRECTIONS };

#define DROP_CAUSES(X)                                                                             \
    X(loss)                                                                                        \
    X(queue)                                                                                       \
    X(police)                                                                                      \
    X(flow)                                                                                        \
    X(pool)                                                                                        \
    X(device)                                                                                      \
    X(foreign)
#define X(name) DROP_##name,
enum drop_cause { DROP_CAUSES(X) DROP_KINDS };
#undef X

enum flow_state { FLOW_OPEN, FLOW_BLACKHOLE, FLOW_RESET };

struct link_settings {
    int64_t delay_ns, jitter_ns; /* jitter is uniform in both senses and keeps the order */
    double loss;                 /* share of packets, 0 to 1 */
    double reorder;              /* share of packets that others may overtake ... */
    int64_t reorder_ns;          /* ... because they are held back this much longer */
    double rate_bps;             /* bits of IP packets a second; 0 is no cap */
    int64_t queue_bytes;         /* what may wait before the cap */
    int64_t ecn_bytes;           /* ECT packets that find more waiting are marked CE; 0 is never */
};

struct link_counters {
    uint64_t packets_in, bytes_in, packets_out, bytes_out;
    uint64_t drops[DROP_KINDS];
    uint64_t ce_marked, held_back;
    int64_t queue_peak_bytes, queue_peak_ns;
    uint64_t queued; /* packets that passed the queue, waiting queue_ns in all */
    int64_t queue_ns;
    int64_t late_peak_ns; /* how much after its time the relay came to deliver a packet */
    int64_t late_ns;
};

struct packet {
    int64_t at; /* when it is due; until it has passed the queue, when it arrived */
    double jitter;
    uint32_t next, flow; /* flow 0: none */
    uint32_t size;
    bool held;
    uint8_t data[];
};

struct packet_list {
    uint32_t head, tail;
    int64_t last_at;
};

struct link {
    struct link_settings settings;
    struct link_counters counters;
    enum direction direction;
    uint64_t loss_seed, jitter_seed, reorder_seed;
    int64_t free_at, head_done; /* when the cap has sent the last packet; the queue's first */
    int64_t queue_bytes;
    struct packet_list queue, line, held;
    uint8_t *pool;
    size_t stride;
    uint32_t slots, fresh, unused; /* slots never used yet, and the list of those given back */
};

struct flow {
    uint32_t address[DIRECTIONS]; /* of the end that sends in that direction; network order */
    uint16_t port[DIRECTIONS];
    enum flow_state state;
    double police_bps, burst_bytes; /* 0: free */
    double tokens[DIRECTIONS];
    int64_t tokens_at[DIRECTIONS];
    uint64_t packets[DIRECTIONS], bytes[DIRECTIONS], policed[DIRECTIONS];
    uint32_t next_sequence[DIRECTIONS], last_ack[DIRECTIONS];
    bool acked[DIRECTIONS];
};

struct rule {
    uint32_t first, last; /* flows by order of appearance, from 1 */
    double rate_bps, burst_bytes;
};

struct flows {
    struct flow flow[FLOW_LIMIT + 1]; /* [0] stays empty */
    uint32_t count;
    uint64_t unnumbered; /* packets of flows beyond the limit: no rule reaches them */
    uint32_t table[4 * FLOW_LIMIT];
    struct rule rules[RULE_LIMIT];
    unsigned rule_count;
};

/* Every pool is reserved, not committed: what is in flight decides how much memory is used. */
int link_open(struct link *link, enum direction direction, size_t mtu, size_t pool_bytes,
              uint64_t seed);
void link_close(struct link *link);
struct packet *link_packet(const struct link *link, uint32_t slot);
uint32_t link_take(struct link *link); /* NO_PACKET when the pool is exhausted */
void link_give(struct link *link, uint32_t slot);
void link_set(struct link *link, const struct link_settings *settings);
/* The packet in *slot*, size bytes of IP, has come in. True if the sender is to be answered with a
 * reset (reset_for, then link_give); otherwise the link has taken it over or dropped it. */
bool link_arrive(struct link *link, struct flows *flows, uint32_t slot, int64_t now);
/* The next packet due at *now*, or NO_PACKET. The caller writes it, counts and gives it back. */
uint32_t link_due(struct link *link, int64_t now);
/* When link_due has something to do again; INT64_MAX if never. */
int64_t link_wake(const struct link *link);

/* Number of the flow a TCP packet belongs to, from 1; 0 for anything else. */
uint32_t flow_of(struct flows *flows, enum direction direction, const uint8_t *ip, size_t size);
void flows_police(struct flows *flows); /* apply the rules to the flows there are */
/* A TCP reset of *flow* for the end that sends in *direction*, as if from the other one. An end
 * that is elsewhere by now answers with what makes the next reset exact (RFC 5961). */
#define RESET_SIZE 40
size_t reset_for(const struct flow *flow, enum direction direction, uint8_t *ret_ip);

#endif
