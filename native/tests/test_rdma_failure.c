/* How a channel ends: by its device, its peer or a call that fails. */
#include "nc_rdma.h"

#include <errno.h>

#include "../src/nc_rdma_private.h"
#include "check.h"
#include "rdma_pair.h"

static void (*raise_event)(int);

/* The channel is only good for closing: everything says the same from now on. */
static void check_ended(struct nc_rdma_channel *channel, int code, const char *reason)
{
    struct nc_err err = {0};
    struct nc_rdma_message message;
    size_t count = 9;
    int room = 9;
    uint32_t slot;

    for (int i = 0; i < 2; i++) {
        CHECK(poll_one(channel, &message, &count, &room, &err) == code);
        CHECK(count == 0 && room == 0);
        if (strstr(err.reason, reason) == NULL)
            CHECK_TEXT(err.reason, reason);
    }
    CHECK(nc_rdma_channel_acquire(channel, &slot) == NULL);
    CHECK(nc_rdma_channel_post(channel, 0, 1, &err) == code);
    CHECK(nc_rdma_channel_release(channel, 0, &err) == code);
}

static void a_write_that_fails_ends_both_sides_with_the_status_in_words(void)
{
    struct pair pair = open_pair(4, 4, 4096);
    struct nc_err err = {0};
    struct nc_rdma_message message;
    size_t count;
    int room;

    /* A message that came before the failure is still delivered, and the descriptor stays readable
     * for the failure. */
    CHECK(poll_one(pair.channels[1], &message, &count, &room, &err) == NC_ERR_OK);
    CHECK(send_one(pair.channels[0], 10, &err) == NC_ERR_OK);
    set_fault("badstatus");
    CHECK(send_one(pair.channels[0], 10, &err) == NC_ERR_OK);
    set_fault("");
    CHECK(is_readable(pair.channels[1], 0));
    CHECK(nc_rdma_channel_poll(pair.channels[1], &message, 1, &count, &room, &err) == NC_ERR_OK);
    CHECK(count == 1);
    CHECK(is_readable(pair.channels[1], 0));
    check_ended(pair.channels[0], NC_ERR_SYSTEM, "rxe0: remote operation error (status 11");
    check_ended(pair.channels[1], NC_ERR_SYSTEM, "rxe0: request flushed");
    close_pair(&pair);
}

static void a_failure_after_messages_of_the_same_batch_comes_with_the_next_call(void)
{
    struct pair pair = open_pair(4, 4, 4096);
    struct nc_err err = {0};
    struct nc_rdma_message messages[4];
    size_t count;
    int room;

    CHECK(nc_rdma_channel_poll(pair.channels[1], messages, 4, &count, &room, &err) == NC_ERR_OK);
    CHECK(send_one(pair.channels[0], 10, &err) == NC_ERR_OK);
    set_fault("badstatus");
    CHECK(send_one(pair.channels[0], 10, &err) == NC_ERR_OK);
    set_fault("");
    CHECK(nc_rdma_channel_poll(pair.channels[1], messages, 4, &count, &room, &err) == NC_ERR_OK);
    CHECK(count == 1 && !room);
    CHECK(is_readable(pair.channels[1], 0));
    check_ended(pair.channels[1], NC_ERR_SYSTEM, "request flushed");
    close_pair(&pair);
}

static void a_peer_that_is_gone_does_not_answer(void)
{
    struct pair pair = open_pair(4, 4, 4096);
    struct nc_err err = {0};

    nc_rdma_channel_close(pair.channels[1]);
    pair.channels[1] = NULL;
    CHECK(send_one(pair.channels[0], 10, &err) == NC_ERR_OK);
    check_ended(pair.channels[0], NC_ERR_SYSTEM, "the peer does not answer (status 12");
    close_pair(&pair);
}

/* Polls whenever there is reason to, until the channel failed. */
static void wait_for_failure(struct nc_rdma_channel *channel)
{
    struct nc_rdma_message message;
    struct nc_err err = {0};
    size_t count;
    int room;

    for (int turns = 0; turns < 1000 && is_readable(channel, 20000); turns++) {
        if (poll_one(channel, &message, &count, &room, &err) != NC_ERR_OK)
            return;
    }
    CHECK(!"a channel whose peer is gone waits for ever");
}

/* The peer died holding all credits, after its device had acknowledged every write; and one that
 * only waits for messages. Neither has a write to make. */
static void a_peer_that_is_gone_is_missed_without_a_write_to_make(void)
{
    for (int writes = 0; writes <= 4; writes += 4) {
        struct pair pair;
        struct nc_err err = {0};
        struct nc_rdma_message message;
        size_t count;
        int room;

        nc_rdma_probe_ns = 1000000;
        pair = open_pair(4, 4, 4096);
        nc_rdma_probe_ns = 0;
        for (int i = 0; i < writes; i++)
            CHECK(send_one(pair.channels[0], 10, &err) == NC_ERR_OK);
        CHECK(poll_one(pair.channels[0], &message, &count, &room, &err) == NC_ERR_OK);
        CHECK(room == (writes == 0));
        /* It lived through some probes: the first is not the last. */
        for (int turns = 0; turns < 6; turns++)
            CHECK(is_readable(pair.channels[0], 20000) &&
                  poll_one(pair.channels[0], &message, &count, &room, &err) == NC_ERR_OK);
        nc_rdma_channel_close(pair.channels[1]);
        pair.channels[1] = NULL;
        wait_for_failure(pair.channels[0]);
        check_ended(pair.channels[0], NC_ERR_SYSTEM, "the peer does not answer (status 12");
        close_pair(&pair);
    }
}

static void a_probe_costs_a_living_peer_nothing(void)
{
    struct pair pair;
    struct nc_err err = {0};
    struct nc_rdma_message message;
    size_t count;
    int room;

    nc_rdma_probe_ns = 1000000;
    pair = open_pair(2, 2, 4096);
    nc_rdma_probe_ns = 0;
    /* More of them than there are receives posted or places in the send queue. */
    for (int i = 0; i < 20; i++) {
        CHECK(is_readable(pair.channels[0], 20000));
        CHECK(poll_one(pair.channels[0], &message, &count, &room, &err) == NC_ERR_OK);
        CHECK(count == 0 && room);
    }
    for (int i = 0; i < 2; i++)
        CHECK(send_one(pair.channels[0], 10, &err) == NC_ERR_OK);
    for (int i = 0; i < 2; i++)
        CHECK(poll_one(pair.channels[1], &message, &count, &room, &err) == NC_ERR_OK && count == 1);
    close_pair(&pair);
}

static void each_call_that_fails_is_named(void)
{
    static const char *const faults[][2] = {
        {"pollfails", "ibv_poll_cq failed on rxe0"},
        {"notifyfails", "ibv_req_notify_cq failed on rxe0"},
        {"eventfails", "ibv_get_cq_event failed on rxe0"},
        {"recvfails", "ibv_post_recv failed on rxe0"},
    };
    struct nc_err err = {0};
    struct nc_rdma_message message;
    size_t count;
    int room;

    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        struct pair pair = open_pair(4, 4, 4096);
        int code;

        CHECK(send_one(pair.channels[0], 10, &err) == NC_ERR_OK);
        set_fault(faults[i][0]);
        do
            code = poll_one(pair.channels[1], &message, &count, &room, &err);
        while (code == NC_ERR_OK && is_readable(pair.channels[1], 0));
        check_ended(pair.channels[1], NC_ERR_SYSTEM, faults[i][1]);
        set_fault("");
        close_pair(&pair);
    }
}

static void a_send_that_cannot_be_posted_ends_the_channel(void)
{
    struct pair pair = open_pair(4, 4, 4096);
    struct nc_err err = {0};
    struct nc_rdma_message message;
    size_t count;
    int room;

    CHECK(send_one(pair.channels[0], 10, &err) == NC_ERR_OK);
    CHECK(poll_one(pair.channels[1], &message, &count, &room, &err) == NC_ERR_OK && count == 1);
    set_fault("sendfails");
    CHECK(send_one(pair.channels[0], 10, &err) == NC_ERR_SYSTEM);
    CHECK_TEXT(err.reason, "ibv_post_send failed on rxe0");
    CHECK(err.os_errno == EINVAL);
    check_ended(pair.channels[0], NC_ERR_SYSTEM, "ibv_post_send failed");
    /* Credits are sends as well. */
    CHECK(nc_rdma_channel_release(pair.channels[1], message.slot, &err) == NC_ERR_OK);
    check_ended(pair.channels[1], NC_ERR_SYSTEM, "ibv_post_send failed");
    set_fault("");
    close_pair(&pair);
}

static void a_device_that_fails_ends_every_channel_on_it(void)
{
    struct nc_rdma_channel *late;
    struct pair pair = open_pair(4, 4, 4096);
    struct nc_err err = {0};
    struct nc_rdma_message message;
    size_t count;
    int room;

    for (int i = 0; i < 2; i++) {
        CHECK(poll_one(pair.channels[i], &message, &count, &room, &err) == NC_ERR_OK);
        CHECK(!is_readable(pair.channels[i], 0));
    }
    CHECK(!nc_rdma_lost(pair.rdma));
    raise_event(9); /* the port became active: of no interest */
    CHECK(poll_one(pair.channels[0], &message, &count, &room, &err) == NC_ERR_OK);
    CHECK(!is_readable(pair.channels[0], 0) && !is_readable(pair.channels[1], 0));
    raise_event(IBV_EVENT_DEVICE_FATAL);
    /* The first one takes the event; the second one hears of it all the same. */
    check_ended(pair.channels[0], NC_ERR_SYSTEM, "RDMA device rxe0 failed and must be reset");
    CHECK(is_readable(pair.channels[1], 0));
    check_ended(pair.channels[1], NC_ERR_SYSTEM, "RDMA device rxe0 failed and must be reset");
    CHECK(nc_rdma_lost(pair.rdma));
    CHECK(nc_rdma_channel_open(pair.rdma, 4, 4096, &late, &err) == NC_ERR_UNAVAILABLE);
    CHECK_TEXT(err.reason, "RDMA device rxe0 was removed or failed");
    CHECK(late == NULL);
    close_pair(&pair);
}

/* Our own channel with its books falsified plays a peer that breaks the rules. */
static void a_peer_that_breaks_the_rules_is_told_from_one_that_fails(void)
{
    struct nc_err err = {0};
    struct pair pair = open_pair(4, 4, 4096);
    struct nc_rdma_channel *liar = pair.channels[0];

    CHECK(send_one(liar, 10, &err) == NC_ERR_OK);
    liar->credits.slots[liar->credits.count++] = 3; /* the one just written */
    CHECK(send_one(liar, 10, &err) == NC_ERR_OK);
    for (int i = 0; i < 2; i++) {
        struct nc_rdma_message messages[4];
        size_t count;
        int room;
        int code = nc_rdma_channel_poll(pair.channels[1], messages, 4, &count, &room, &err);

        CHECK(i == 0 ? code == NC_ERR_OK && count == 1 : code == NC_ERR_PROTOCOL);
    }
    check_ended(pair.channels[1], NC_ERR_PROTOCOL, "slot 3, which was not its to write");
    close_pair(&pair);

    pair = open_pair(4, 8, 4096);
    liar = pair.channels[1];
    liar->receive[2] = NC_RDMA_HELD;
    CHECK(nc_rdma_channel_release(liar, 2, &err) == NC_ERR_OK);
    CHECK(send_one(liar, 10, &err) == NC_ERR_OK);
    check_ended(pair.channels[0], NC_ERR_PROTOCOL, "returned slot 2, which holds nothing of ours");
    close_pair(&pair);

    pair = open_pair(4, 4, 4096);
    liar = pair.channels[0];
    liar->slot_bytes = 8192; /* two slots at once */
    liar->credits.slots[liar->credits.count - 1] = 0;
    liar->idle.slots[liar->idle.count - 1] = 0;
    CHECK(send_one(liar, 5000, &err) == NC_ERR_OK);
    check_ended(pair.channels[1], NC_ERR_PROTOCOL, "5000 bytes into a slot of 4096");
    close_pair(&pair);

    pair = open_pair(4, 4, 4096);
    liar = pair.channels[0];
    liar->peer.rkey++;
    CHECK(send_one(liar, 10, &err) == NC_ERR_OK);
    check_ended(liar, NC_ERR_SYSTEM, "may not be written (status 10");
    check_ended(pair.channels[1], NC_ERR_SYSTEM, "request flushed");
    close_pair(&pair);
}

int main(void)
{
    void *library = dlopen(FAKE, RTLD_NOW);

    if (library == NULL)
        return 1;
    find(library, "fake_verbs_raise", &raise_event);
    set_fault("");
    nc_rdma_probe_ns = 0;
    a_write_that_fails_ends_both_sides_with_the_status_in_words();
    a_failure_after_messages_of_the_same_batch_comes_with_the_next_call();
    a_peer_that_is_gone_does_not_answer();
    a_peer_that_is_gone_is_missed_without_a_write_to_make();
    a_probe_costs_a_living_peer_nothing();
    each_call_that_fails_is_named();
    a_send_that_cannot_be_posted_ends_the_channel();
    a_device_that_fails_ends_every_channel_on_it();
    a_peer_that_breaks_the_rules_is_told_from_one_that_fails();
    (void)dlclose(library);
    return CHECK_RESULT;
}
