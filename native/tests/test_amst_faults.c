/* Injected faults on the wire: nothing that was changed, cut, repeated, swapped or brought from
 * another session may reach a target, and every object still arrives.
 *
 * The test stands between two engines and forwards frames; about every third is harmed, which must
 * end its stream. FAULTS in the environment says how many are injected (default: 1500). */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "nc_amst.h"
#include "nc_codec.h"
#include "nc_err.h"
#include "nc_frame.h"

#define CHUNK 4096u
#define SIZE (12 * CHUNK + 77)
#define CHUNKS 13
#define CANARY 0xa5
#define FRAME_BYTES (NC_FRAME_HEADER_BYTES + CHUNK + 64)
#define RECORDED 64
#define ROUNDS 20000 /* of forwarding for one object, after which it is stuck */

enum fault { FLIP, TRUNCATE, REPLAY, REORDER, DUPLICATE, SPLICE, FAULTS };
static const char *const fault_names[FAULTS] = {"flipped",   "truncated",  "replayed",
                                                "reordered", "duplicated", "spliced"};
static unsigned long injected[2][FAULTS];
static unsigned long harmless;
static uint64_t state = 0x9e3779b97f4a7c15;

struct bytes {
    uint8_t data[FRAME_BYTES];
    size_t size;
};
/* Frames of another session with the same ids: [direction][which]. */
static struct bytes recorded[2][RECORDED];
static unsigned recorded_count[2];

struct side {
    struct nc_amst *engine;
    struct nc_amst_link *link;
    unsigned done;
    unsigned failed;
    unsigned lost;
    unsigned ended;
    unsigned link_ended;
};

/* One direction of the relayed connection. */
struct lane {
    int from;
    int to;
    struct bytes frame;
    struct bytes last;
    struct bytes held;
};

static uint32_t draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 33) % below;
}

static void poll_events(struct side *side)
{
    struct nc_amst_event events[16];
    size_t count;

    while ((count = nc_amst_poll(side->engine, events, 16)) > 0) {
        for (size_t i = 0; i < count; i++) {
            side->done += events[i].kind == NC_AMST_OBJECT_DONE;
            side->failed += events[i].kind == NC_AMST_OBJECT_FAILED;
            side->lost += events[i].kind == NC_AMST_STREAM_LOST;
            side->ended += events[i].kind == NC_AMST_OBJECT_ENDED;
            side->link_ended += events[i].kind == NC_AMST_LINK_ENDED;
        }
    }
}

static void await(struct side *side, const unsigned *seen)
{
    for (int i = 0; i < 10000 && *seen == 0; i++) {
        poll_events(side);
        if (*seen == 0)
            (void)usleep(200);
    }
    CHECK(*seen != 0);
}

static void open_link(struct side *side, int initiator, int encrypt, int secret)
{
    struct nc_amst_link_options options = {.initiator = initiator,
                                           .encrypt = encrypt,
                                           .max_chunk = NC_FRAME_MIN_CHUNK,
                                           .send_window = 1u << 20,
                                           .receive_window = 1u << 20,
                                           .codecs = nc_codec_available() | NC_AMST_DELTA};
    struct nc_err err;

    memset(options.secret, secret, sizeof options.secret);
    memset(options.context, 3, sizeof options.context);
    side->done = side->failed = side->lost = side->ended = side->link_ended = 0;
    if (nc_amst_link_open(side->engine, &options, &side->link, &err) != NC_ERR_OK)
        abort();
}

static void tcp_pair(int listener, int ret_ends[2])
{
    struct sockaddr_in address;
    socklen_t size = sizeof address;

    if (getsockname(listener, (struct sockaddr *)&address, &size) != 0)
        abort();
    ret_ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(ret_ends[0], (struct sockaddr *)&address, size) != 0)
        abort();
    ret_ends[1] = accept(listener, NULL, NULL);
}

/* A whole frame into lane->frame: 1; 0: not yet; -1: the connection ended. */
static int next_frame(struct lane *lane, int encrypt)
{
    struct bytes *frame = &lane->frame;

    for (;;) {
        size_t want = NC_FRAME_HEADER_BYTES;
        ssize_t got;

        if (frame->size >= NC_FRAME_HEADER_BYTES) {
            struct nc_frame head = {
                .type = frame->data[5], .flags = frame->data[6], .codec = frame->data[7]};

            want += (size_t)frame->data[46] << 8 | frame->data[47];
            want += nc_frame_trailer_bytes(&head, encrypt);
            if (frame->size == want)
                return 1;
        }
        if (want > sizeof frame->data)
            return -1;
        got = recv(lane->from, frame->data + frame->size, want - frame->size, MSG_DONTWAIT);
        if (got > 0)
            frame->size += (size_t)got;
        else if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return 0;
        else
            return -1;
    }
}

static void forward(const struct lane *lane, const struct bytes *frame)
{
    (void)!send(lane->to, frame->data, frame->size, MSG_NOSIGNAL);
}

/* Sends lane->frame harmed; what was possible instead is returned where the drawn fault was not. */
static enum fault harm(struct lane *lane, int direction)
{
    struct bytes *frame = &lane->frame;
    enum fault fault = (enum fault)draw(FAULTS);
    uint32_t bit = draw((uint32_t)frame->size * 8);

    if ((fault == REPLAY && lane->last.size == 0) || fault == REORDER)
        fault = fault == REORDER && lane->held.size == 0 ? REORDER : DUPLICATE;
    switch (fault) {
    case TRUNCATE:
        frame->size = draw((uint32_t)frame->size);
        forward(lane, frame);
        (void)shutdown(lane->to, SHUT_RDWR);
        return fault;
    case REPLAY:
        forward(lane, &lane->last);
        forward(lane, frame);
        return fault;
    case REORDER: /* sent behind the one that follows */
        lane->held = *frame;
        return fault;
    case SPLICE:
        if (recorded_count[direction] > 0) {
            forward(lane, &recorded[direction][draw(recorded_count[direction])]);
            return fault;
        }
        break;
    case DUPLICATE:
        forward(lane, frame);
        forward(lane, frame);
        return fault;
    default:
        break;
    }
    frame->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    forward(lane, frame);
    return FLIP;
}

/* Every chunk is as it was, or as it is to be: never anything else. */
static void check_target(const uint8_t *target, const uint8_t *source)
{
    static uint8_t canary[CHUNK];

    memset(canary, CANARY, sizeof canary);
    for (size_t i = 0; i < CHUNKS; i++) {
        size_t size = i == CHUNKS - 1 ? SIZE % CHUNK : CHUNK;
        const uint8_t *at = target + i * CHUNK;

        CHECK(memcmp(at, canary, size) == 0 || memcmp(at, source + i * CHUNK, size) == 0);
    }
    CHECK(memcmp(target + SIZE, canary, 64) == 0);
}

struct connection {
    struct lane lanes[2];
    int harmed;
    int broken;
    int delivered;          /* direction of a fault that has to be refused, plus 1 */
    uint64_t bad_before[2]; /* frames refused before, by a and b */
};

static int connect_stream(struct connection *connection, struct side *a, struct side *b,
                          int listener, uint32_t id)
{
    int near[2];
    int far[2];
    struct nc_err err;
    struct pollfd ready;
    struct nc_amst_link_info info;
    struct lane hello = {0};
    int code;

    tcp_pair(listener, near);
    tcp_pair(listener, far);
    memset(connection, 0, sizeof *connection);
    nc_amst_link_info(a->link, &info);
    connection->bad_before[0] = info.bad_frames;
    nc_amst_link_info(b->link, &info);
    connection->bad_before[1] = info.bad_frames;
    if (nc_amst_link_dialled(a->link, near[0], id, &err) != NC_ERR_OK)
        return -1;
    hello.from = near[1];
    while ((code = next_frame(&hello, 1)) == 0) {
        ready = (struct pollfd){.fd = near[1], .events = POLLIN};
        (void)poll(&ready, 1, 1000);
    }
    if (code == 1 && nc_amst_link_accepted(b->link, far[0], hello.frame.data, hello.frame.size,
                                           &err) == NC_ERR_OK) {
        connection->lanes[0].from = connection->lanes[1].to = near[1];
        connection->lanes[0].to = connection->lanes[1].from = far[1];
        return 0;
    }
    (void)close(near[1]);
    (void)close(far[1]);
    return -1;
}

/* Forwards what there is; harms with a chance of one in `odds` (0: never) until it has harmed once.
 */
static void pump(struct connection *connection, int encrypt, uint32_t odds, int record)
{
    struct pollfd ready[2];

    for (int i = 0; i < 2; i++)
        ready[i] = (struct pollfd){.fd = connection->lanes[i].from, .events = POLLIN};
    (void)poll(ready, 2, 2);
    for (int i = 0; i < 2 && !connection->broken; i++) {
        struct lane *lane = &connection->lanes[i];
        int code;

        while ((code = next_frame(lane, encrypt)) == 1) {
            struct bytes whole = lane->frame;

            if (record && recorded_count[i] < RECORDED)
                recorded[i][recorded_count[i]++] = whole;
            if (odds != 0 && !connection->harmed && draw(odds) == 0) {
                enum fault fault = harm(lane, i);

                connection->harmed = 1;
                if (fault != REORDER) {
                    injected[encrypt][fault]++;
                    connection->delivered = fault == TRUNCATE ? 0 : i + 1;
                }
            } else {
                forward(lane, &lane->frame);
            }
            if (lane->held.size != 0 && memcmp(lane->held.data, whole.data, whole.size) != 0) {
                forward(lane, &lane->held);
                lane->held.size = 0;
                injected[encrypt][REORDER]++;
                connection->delivered = i + 1;
            }
            lane->last = whole;
            lane->frame.size = 0;
        }
        if (code < 0)
            connection->broken = 1;
    }
}

/* What was delivered changed, repeated, swapped or from elsewhere was refused as such, and not only
 * lost. */
static void check_refused(const struct connection *connection, const struct side *a,
                          const struct side *b)
{
    struct nc_amst_link_info info = {0};

    const struct side *side = connection->delivered == 1 ? b : a;
    uint64_t before = connection->bad_before[side == b];

    if (connection->delivered == 0)
        return;
    for (int i = 0; i < 20000 && info.bad_frames <= before; i++) {
        nc_amst_link_info(side->link, &info);
        if (info.bad_frames <= before)
            (void)usleep(100);
    }
    CHECK(info.bad_frames > before);
}

static void disconnect(const struct connection *connection)
{
    (void)close(connection->lanes[0].from);
    (void)close(connection->lanes[0].to);
}

/* No thread writes to the target any more. */
static void await_quiet(const struct side *side)
{
    struct nc_amst_link_info info = {.streams = 1};

    for (int i = 0; i < 20000 && info.streams != 0; i++) {
        nc_amst_link_info(side->link, &info);
        if (info.streams != 0)
            (void)usleep(100);
    }
    CHECK(info.streams == 0);
}

/* Every other chunk can be compressed; some are zeros, and some are nearly as they were. */
static void make_content(uint8_t *old, uint8_t *new)
{
    for (size_t i = 0; i < SIZE; i++) {
        size_t chunk = i / CHUNK;

        old[i] = (uint8_t)draw(256);
        new[i] = chunk % 5 == 4   ? 0
                 : chunk % 5 == 3 ? old[i]
                 : chunk % 2 == 0 ? (uint8_t)draw(256)
                                  : (uint8_t)(draw(16) == 0 ? draw(256) : i / 64);
        if (chunk % 5 == 3 && draw(200) == 0)
            new[i] ^= 1;
    }
}

static struct nc_amst_coding draw_coding(void)
{
    static const struct nc_amst_coding codings[] = {
        {.policy = NC_AMST_CODING_OFF},
        {.policy = NC_AMST_CODING_ADAPTIVE, .level_min = -5, .level_max = 9},
        {.policy = NC_AMST_CODING_FIXED, .codec = NC_CODEC_LZ4, .level = 1},
        {.policy = NC_AMST_CODING_FIXED, .codec = NC_CODEC_ZSTD, .level = 1},
    };

    return codings[draw(4)];
}

/* Moves one object, harmed or not; ends both links. */
static void move_object(struct side *a, struct side *b, int listener, int encrypt, int secret,
                        uint32_t odds, int record)
{
    static uint8_t base[SIZE];
    static uint8_t from[SIZE];
    static uint8_t to[SIZE + 64];
    uint32_t base_id = draw(2);
    struct nc_amst_source source = {.number = 1,
                                    .fd = -1,
                                    .memory = from,
                                    .size = SIZE,
                                    .chunk = CHUNK,
                                    .coding = draw_coding(),
                                    .base_id = base_id,
                                    .base_fd = -1,
                                    .base_memory = base};
    struct nc_amst_target target = {.number = 1,
                                    .fd = -1,
                                    .memory = to,
                                    .size = SIZE,
                                    .chunk = CHUNK,
                                    .base_id = base_id,
                                    .base_fd = -1,
                                    .base_memory = base};
    struct nc_amst_object *sent;
    struct nc_amst_object *received;
    struct connection connection;
    struct nc_err err;
    uint32_t id = 1;
    int open = 0;

    make_content(base, from);
    memset(to, CANARY, sizeof to);
    open_link(a, 1, encrypt, secret);
    open_link(b, 0, encrypt, secret);
    CHECK(nc_amst_receive(b->link, &target, &received, &err) == NC_ERR_OK);
    CHECK(nc_amst_send(a->link, &source, &sent, &err) == NC_ERR_OK);
    for (int rounds = 0; rounds < ROUNDS && (a->done == 0 || b->done == 0); rounds++) {
        if (!open)
            open = connect_stream(&connection, a, b, listener, id++) == 0;
        if (open) {
            pump(&connection, encrypt, odds, record);
            /* A harmed connection that nobody ends is given up: a frame that is held back, say. */
            if (connection.broken || (connection.harmed && ++connection.harmed > 8)) {
                harmless += connection.delivered == 0 && !connection.broken;
                check_refused(&connection, a, b);
                disconnect(&connection);
                open = 0;
                await_quiet(b);
                check_target(to, from);
            }
        }
        poll_events(a);
        poll_events(b);
    }
    if (open)
        disconnect(&connection);
    CHECK(a->done == 1 && b->done == 1 && a->failed == 0 && b->failed == 0);
    CHECK(memcmp(from, to, SIZE) == 0);
    nc_amst_object_abort(sent);
    nc_amst_object_abort(received);
    await(a, &a->ended);
    await(b, &b->ended);
    nc_amst_object_free(sent);
    nc_amst_object_free(received);
    nc_amst_link_abort(a->link);
    nc_amst_link_abort(b->link);
    await(a, &a->link_ended);
    await(b, &b->link_ended);
    nc_amst_link_free(a->link);
    nc_amst_link_free(b->link);
}

static unsigned long total(void)
{
    unsigned long sum = 0;

    for (int i = 0; i < FAULTS; i++)
        sum += injected[0][i] + injected[1][i];
    return sum;
}

int main(void)
{
    const char *asked = getenv("FAULTS");
    unsigned long wanted = asked != NULL ? strtoul(asked, NULL, 10) : 1500;
    struct nc_amst_options options = {.threads = 1};
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct side a = {0};
    struct side b = {0};
    struct nc_err err;
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(listen(listener, 16) == 0);
    if (nc_amst_open(&options, &a.engine, &err) != NC_ERR_OK ||
        nc_amst_open(&options, &b.engine, &err) != NC_ERR_OK) {
        (void)fprintf(stderr, "no engine: %s\n", err.reason);
        return 1;
    }
    for (int encrypt = 0; encrypt < 2; encrypt++) {
        memset(recorded_count, 0, sizeof recorded_count);
        move_object(&a, &b, listener, encrypt, 9, 0, 1);
        while (total() < wanted * (unsigned long)(encrypt + 1) / 2 && check_failures == 0)
            move_object(&a, &b, listener, encrypt, 6, 6, 0);
    }
    nc_amst_close(a.engine);
    nc_amst_close(b.engine);
    (void)close(listener);
    for (int encrypt = 0; encrypt < 2; encrypt++) {
        (void)printf("%s:", encrypt ? "encrypted" : "clear");
        for (int i = 0; i < FAULTS; i++)
            (void)printf(" %lu %s", injected[encrypt][i], fault_names[i]);
        (void)printf("\n");
    }
    (void)printf("%lu faults, %lu were held back and never sent\n", total(), harmless);
    return CHECK_RESULT;
}
