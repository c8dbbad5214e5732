/* What moves through a channel. */
#include "nc_rdma.h"

#include <pthread.h>
#include <stdatomic.h>

#include "../src/nc_rdma_private.h"
#include "check.h"
#include "rdma_pair.h"

static void (*guard)(const void *, size_t, int);
static unsigned int (*starved)(void);

/* xorshift: the same messages in every run. */
static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static void fill(uint8_t *data, uint32_t size, uint32_t number)
{
    uint32_t state = number * 2654435761u | 1;

    for (uint32_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i % 4 == 0 ? next_random(&state) : state >> 8 * (i % 4));
}

static uint32_t size_of(uint32_t number, uint32_t slot_bytes)
{
    uint32_t state = number * 40503u + 77;

    return number % 7 == 0 ? slot_bytes : 1 + next_random(&state) % slot_bytes;
}

static int is_intact(const struct nc_rdma_message *message, uint32_t number, uint32_t slot_bytes)
{
    static _Thread_local uint8_t expected[16384];
    uint32_t size = size_of(number, slot_bytes);

    if (message->size != size)
        return 0;
    fill(expected, size, number);
    return memcmp(message->data, expected, size) == 0;
}

/* One end of the exchange: sends `total` messages and takes as many, holding some back. */
struct end {
    struct nc_rdma_channel *channel;
    uint32_t slot_bytes;
    uint32_t slots;
    uint32_t total;
    uint32_t sent;
    uint32_t taken;
    uint32_t held[NC_RDMA_MAX_SLOTS];
    const uint8_t *data[NC_RDMA_MAX_SLOTS];
    uint32_t holding;
    uint32_t random;
    uint32_t full; /* how often acquire gave nothing */
    int room;      /* what the last poll said, unless acquire gave nothing since */
    int wrong;
};

static void release_one(struct end *end, struct nc_err *err)
{
    /* Any of them: the order of arrival is not the order of release. */
    uint32_t i = next_random(&end->random) % end->holding;
    uint32_t slot = end->held[i];

    guard(end->data[i], end->slot_bytes, 0);
    end->holding--;
    end->held[i] = end->held[end->holding];
    end->data[i] = end->data[end->holding];
    if (nc_rdma_channel_release(end->channel, slot, err) != NC_ERR_OK)
        end->wrong = 1;
}

static void take_messages(struct end *end, size_t capacity)
{
    struct nc_err err = {0};
    struct nc_rdma_message messages[8];
    size_t count = 0;

    if (nc_rdma_channel_poll(end->channel, messages, capacity, &count, &end->room, &err) !=
        NC_ERR_OK) {
        (void)fprintf(stderr, "poll: %s\n", err.reason);
        end->wrong = 1;
    }
    for (size_t i = 0; i < count; i++) {
        if (!is_intact(&messages[i], end->taken++, end->slot_bytes))
            end->wrong = 1;
        guard(messages[i].data, end->slot_bytes, 1);
        end->held[end->holding] = messages[i].slot;
        end->data[end->holding++] = messages[i].data;
    }
    /* Holds at most what leaves the peer a slot, like a writer that is behind. */
    while (end->holding > 0 && (end->holding >= end->slots - 1 || end->taken == end->total ||
                                next_random(&end->random) % 3 != 0))
        release_one(end, &err);
}

static int send_some(struct end *end)
{
    int sent = 0;

    while (end->sent < end->total) {
        struct nc_err err = {0};
        uint32_t slot;
        uint32_t size = size_of(end->sent, end->slot_bytes);
        uint8_t *data = nc_rdma_channel_acquire(end->channel, &slot);

        if (data == NULL) {
            end->full++;
            end->room = 0;
            break;
        }
        if (next_random(&end->random) % 16 == 0) {
            nc_rdma_channel_discard(end->channel, slot);
            continue;
        }
        fill(data, size, end->sent++);
        if (nc_rdma_channel_post(end->channel, slot, size, &err) != NC_ERR_OK) {
            (void)fprintf(stderr, "post: %s\n", err.reason);
            end->wrong = 1;
            break;
        }
        sent++;
    }
    return sent;
}

static int is_done(const struct end *end)
{
    return end->sent == end->total && end->taken == end->total;
}

/* An end polls when its descriptor is readable and never else; it sends when it was told that there
 * is room. If neither end can go on, a wake-up was lost. */
static void exchange(const char *fault, uint32_t slots_0, uint32_t slots_1, uint32_t slot_bytes,
                     uint32_t total, size_t capacity)
{
    struct pair pair;
    struct end ends[2];
    unsigned int starved_before = starved();

    set_fault(fault);
    pair = open_pair(slots_0, slots_1, slot_bytes);
    for (int i = 0; i < 2; i++)
        ends[i] = (struct end){.channel = pair.channels[i],
                               .slot_bytes = slot_bytes,
                               .slots = i == 0 ? slots_0 : slots_1,
                               .total = total,
                               .random = 12345u + (uint32_t)i,
                               .room = 1};
    while (!(is_done(&ends[0]) && is_done(&ends[1])) && !ends[0].wrong && !ends[1].wrong) {
        int moved = 0;

        for (int i = 0; i < 2; i++) {
            if (ends[i].room)
                moved += send_some(&ends[i]);
            if (is_readable(ends[i].channel, 0)) {
                take_messages(&ends[i], capacity);
                moved++;
            }
        }
        /* The writer that was behind goes on: only what it holds may keep the other end waiting. */
        for (int i = 0; i < 2 && moved == 0; i++) {
            if (ends[i].holding > 0) {
                release_one(&ends[i], NULL);
                moved++;
            }
        }
        if (moved == 0) {
            (void)fprintf(stderr, "stuck at %u/%u and %u/%u of %u\n", ends[0].sent, ends[0].taken,
                          ends[1].sent, ends[1].taken, total);
            CHECK(!"a wake-up was lost");
            break;
        }
    }
    for (int i = 0; i < 2; i++) {
        CHECK(!ends[i].wrong);
        CHECK(ends[i].full > 0);
        while (ends[i].holding > 0)
            release_one(&ends[i], NULL);
    }
    CHECK(starved() == starved_before);
    close_pair(&pair);
    set_fault("");
}

static void messages_arrive_intact_and_in_order(void)
{
    exchange("", 16, 16, 4096, 3000, 8);
    exchange("", 2, 2, 4096, 1000, 8);
    exchange("", 3, 2, 8192, 1000, 4);
    exchange("", 2, 64, 4096, 1000, 8);
    exchange("", 1024, 5, 4096, 5000, 8);
}

static void no_wake_up_is_lost_when_completions_come_just_before_arming(void)
{
    exchange("race", 16, 16, 4096, 3000, 8);
    exchange("race", 2, 2, 4096, 1000, 8);
    exchange("race", 2, 7, 4096, 1000, 8);
}

/* What did not fit keeps the descriptor readable. */
static void no_wake_up_is_lost_when_there_is_room_for_one_message(void)
{
    exchange("", 16, 16, 4096, 1000, 1);
    exchange("race", 16, 16, 4096, 1000, 1);
}

struct threaded {
    struct end end;
    atomic_int *done;
};

static void *run_end(void *argument)
{
    struct threaded *threaded = argument;
    struct end *end = &threaded->end;
    int counted = 0;

    while (!end->wrong) {
        if (end->room)
            (void)send_some(end);
        if (is_done(end) && !counted) {
            counted = 1;
            atomic_fetch_add(threaded->done, 1);
        }
        /* The other end may need our credits to the last. */
        if (counted && atomic_load(threaded->done) == 2)
            break;
        if (is_readable(end->channel, counted || end->holding > 0 ? 1 : 20000)) {
            take_messages(end, 8);
        } else if (end->holding > 0) {
            release_one(end, NULL);
        } else if (!counted) {
            (void)fprintf(stderr, "nothing for 20 s at %u/%u\n", end->sent, end->taken);
            end->wrong = 1;
        }
    }
    return NULL;
}

static void two_threads_exchange(const char *fault, uint32_t slots, uint32_t total)
{
    struct pair pair;
    static struct threaded ends[2];
    pthread_t threads[2];
    atomic_int done = 0;
    unsigned int starved_before = starved();

    set_fault(fault);
    pair = open_pair(slots, slots, 4096);
    for (int i = 0; i < 2; i++) {
        ends[i] = (struct threaded){.end = {.channel = pair.channels[i],
                                            .slot_bytes = 4096,
                                            .slots = slots,
                                            .total = total,
                                            .random = 99u + (uint32_t)i,
                                            .room = 1},
                                    .done = &done};
        CHECK(pthread_create(&threads[i], NULL, run_end, &ends[i]) == 0);
    }
    for (int i = 0; i < 2; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < 2; i++) {
        CHECK(!ends[i].end.wrong);
        CHECK(is_done(&ends[i].end));
        while (ends[i].end.holding > 0)
            release_one(&ends[i].end, NULL);
    }
    CHECK(starved() == starved_before);
    close_pair(&pair);
    set_fault("");
}

static void two_threads_with_a_channel_each_exchange_messages(void)
{
    two_threads_exchange("", 8, 3000);
    two_threads_exchange("", 2, 1000);
    two_threads_exchange("race", 4, 2000);
}

static void a_full_channel_gives_no_slot_until_credits_come_back(void)
{
    struct pair pair = open_pair(8, 4, 4096);
    struct nc_err err = {0};
    struct nc_rdma_message messages[8];
    size_t count;
    int room;
    uint32_t slot;

    /* The peer's four slots bound it, not our eight: also when none is posted yet. */
    for (uint32_t i = 0; i < 5; i++)
        CHECK((nc_rdma_channel_acquire(pair.channels[0], &slot) != NULL) == (i < 4));
    for (slot = 0; slot < 8; slot++)
        nc_rdma_channel_discard(pair.channels[0], slot);
    for (int i = 0; i < 4; i++)
        CHECK(send_one(pair.channels[0], 100, &err) == NC_ERR_OK);
    CHECK(nc_rdma_channel_acquire(pair.channels[0], &slot) == NULL);
    CHECK(nc_rdma_channel_poll(pair.channels[0], messages, 8, &count, &room, &err) == NC_ERR_OK);
    CHECK(count == 0 && !room);
    CHECK(nc_rdma_channel_poll(pair.channels[1], messages, 8, &count, &room, &err) == NC_ERR_OK);
    CHECK(count == 4 && room);
    /* Half of the slots are what a release pays at once. */
    CHECK(nc_rdma_channel_release(pair.channels[1], messages[2].slot, &err) == NC_ERR_OK);
    CHECK(poll_one(pair.channels[0], messages + 4, &count, &room, &err) == NC_ERR_OK && !room);
    CHECK(nc_rdma_channel_release(pair.channels[1], messages[0].slot, &err) == NC_ERR_OK);
    CHECK(is_readable(pair.channels[0], 0));
    CHECK(poll_one(pair.channels[0], messages + 4, &count, &room, &err) == NC_ERR_OK && room);
    CHECK(send_one(pair.channels[0], 100, &err) == NC_ERR_OK);
    /* A poll that finds nothing pays the rest. */
    CHECK(send_one(pair.channels[0], 100, &err) == NC_ERR_OK);
    CHECK(nc_rdma_channel_release(pair.channels[1], messages[1].slot, &err) == NC_ERR_OK);
    CHECK(nc_rdma_channel_poll(pair.channels[1], messages + 4, 4, &count, &room, &err) ==
          NC_ERR_OK);
    CHECK(count == 2);
    CHECK(poll_one(pair.channels[0], messages + 6, &count, &room, &err) == NC_ERR_OK && room);
    close_pair(&pair);
}

static void credits_wait_while_the_send_queue_is_full_of_them(void)
{
    struct pair pair = open_pair(4, 4, 4096);
    struct nc_err err = {0};
    struct nc_rdma_message messages[4];
    size_t count;
    int room;

    for (int i = 0; i < 2; i++)
        CHECK(send_one(pair.channels[0], 100, &err) == NC_ERR_OK);
    CHECK(nc_rdma_channel_poll(pair.channels[1], messages, 4, &count, &room, &err) == NC_ERR_OK);
    CHECK(count == 2);
    /* As if four of them were not completed yet, which the false library never leaves so. */
    pair.channels[1]->credit_writes = 4;
    CHECK(nc_rdma_channel_release(pair.channels[1], messages[0].slot, &err) == NC_ERR_OK);
    CHECK(nc_rdma_channel_release(pair.channels[1], messages[1].slot, &err) == NC_ERR_OK);
    CHECK(pair.channels[1]->returns.count == 2);
    pair.channels[1]->credit_writes = 3;
    CHECK(nc_rdma_channel_poll(pair.channels[1], messages, 4, &count, &room, &err) == NC_ERR_OK);
    CHECK(pair.channels[1]->returns.count == 0 && pair.channels[1]->credit_writes == 3);
    CHECK(nc_rdma_channel_poll(pair.channels[0], messages, 4, &count, &room, &err) == NC_ERR_OK);
    CHECK(pair.channels[0]->credits.count == 4);
    close_pair(&pair);
}

static void credits_go_with_messages_the_other_way(void)
{
    struct pair pair = open_pair(8, 8, 4096);
    struct nc_err err = {0};
    struct nc_rdma_message messages[8];
    size_t count;
    int room;

    CHECK(send_one(pair.channels[0], 1, &err) == NC_ERR_OK);
    CHECK(nc_rdma_channel_poll(pair.channels[1], messages, 8, &count, &room, &err) == NC_ERR_OK);
    CHECK(count == 1);
    CHECK(nc_rdma_channel_release(pair.channels[1], messages[0].slot, &err) == NC_ERR_OK);
    CHECK(pair.channels[1]->returns.count == 1);
    CHECK(send_one(pair.channels[1], 1, &err) == NC_ERR_OK);
    CHECK(pair.channels[1]->returns.count == 0);
    CHECK(pair.channels[0]->credits.count == 7);
    CHECK(nc_rdma_channel_poll(pair.channels[0], messages, 8, &count, &room, &err) == NC_ERR_OK);
    CHECK(count == 1 && pair.channels[0]->credits.count == 8);
    close_pair(&pair);
}

static void what_the_caller_does_wrong_is_refused_and_ends_nothing(void)
{
    struct pair pair = open_pair(4, 4, 4096);
    struct nc_err err = {0};
    struct nc_rdma_message message;
    size_t count;
    int room;
    uint32_t slot = 0;

    CHECK(nc_rdma_channel_post(pair.channels[0], 0, 10, &err) == NC_ERR_INVALID);
    CHECK(nc_rdma_channel_post(pair.channels[0], 4, 10, &err) == NC_ERR_INVALID);
    CHECK(nc_rdma_channel_acquire(pair.channels[0], &slot) != NULL);
    CHECK(nc_rdma_channel_post(pair.channels[0], slot, 0, &err) == NC_ERR_INVALID);
    CHECK(nc_rdma_channel_post(pair.channels[0], slot, 4097, &err) == NC_ERR_INVALID);
    nc_rdma_channel_discard(pair.channels[0], slot);
    nc_rdma_channel_discard(pair.channels[0], slot);
    nc_rdma_channel_discard(pair.channels[0], 4);
    CHECK(nc_rdma_channel_post(pair.channels[0], slot, 10, &err) == NC_ERR_INVALID);
    CHECK(nc_rdma_channel_release(pair.channels[1], 0, &err) == NC_ERR_INVALID);
    CHECK(nc_rdma_channel_release(pair.channels[1], 4, &err) == NC_ERR_INVALID);
    CHECK(nc_rdma_channel_poll(pair.channels[1], &message, 0, &count, &room, &err) ==
          NC_ERR_INVALID);
    CHECK(send_one(pair.channels[0], 10, &err) == NC_ERR_OK);
    CHECK(poll_one(pair.channels[1], &message, &count, &room, &err) == NC_ERR_OK && count == 1);
    CHECK(nc_rdma_channel_release(pair.channels[1], message.slot, &err) == NC_ERR_OK);
    CHECK(nc_rdma_channel_release(pair.channels[1], message.slot, &err) == NC_ERR_INVALID);
    close_pair(&pair);
}

int main(void)
{
    void *library = dlopen(FAKE, RTLD_NOW);

    if (library == NULL)
        return 1;
    find(library, "fake_verbs_guard", &guard);
    find(library, "fake_verbs_starved", &starved);
    set_fault("");
    nc_rdma_probe_ns = 0;
    messages_arrive_intact_and_in_order();
    no_wake_up_is_lost_when_completions_come_just_before_arming();
    no_wake_up_is_lost_when_there_is_room_for_one_message();
    two_threads_with_a_channel_each_exchange_messages();
    a_full_channel_gives_no_slot_until_credits_come_back();
    credits_wait_while_the_send_queue_is_full_of_them();
    credits_go_with_messages_the_other_way();
    what_the_caller_does_wrong_is_refused_and_ends_nothing();
    (void)dlclose(library);
    return CHECK_RESULT;
}
