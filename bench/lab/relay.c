/*
 * A wide-area path in user space: two TUN devices, one in each of two network namespaces, and
 * IPv4 packets carried between them as the settings say.
 *
 *   relay NAMESPACE_A NAMESPACE_B DEVICE MTU POOL_BYTES SEED
 *
 * A command is a line on standard input, its answer one line on standard output: "ok", "ok JSON"
 * or "error WORDS". The end of standard input is the end of the relay, and with it of the devices:
 * whoever started it need not live to clean up.
 *
 *   set ab|ba|both KEY VALUE ...    keys: see KEYS
 *   police RATE_BPS BURST_BYTES FIRST[-LAST][,...]    each of these flows; a later rule wins
 *   police none
 *   flow NUMBER open|blackhole|reset
 *   statistics | flows | clear
 */
#define _GNU_SOURCE
#include "relay_link.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
    BATCH = 64, /* packets from one device before the other one and the deliveries have a turn */
    /* Shortest sleep: at 1 Gbit/s a wake-up for each packet would be one in 12 us. What is late by
     * this much is lost among delays of milliseconds. */
    QUANTUM_NS = 50 * 1000,
    LINE_SIZE = 4096,
};

struct relay {
    struct link link[DIRECTIONS];
    struct flows flows;
    int device[DIRECTIONS]; /* that direction's packets come in here, and go out at the other */
    size_t mtu;
    char line[LINE_SIZE];
    size_t line_used;
};

static const char *const names[DIRECTIONS] = {"ab", "ba"};

static enum direction other(enum direction direction)
{
    return direction == A_TO_B ? B_TO_A : A_TO_B;
}

static int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void fail(const char *what)
{
    fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int open_device(const char *namespace, const char *name)
{
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int there = open(namespace, O_RDONLY | O_CLOEXEC);
    int device;

    if (home < 0 || there < 0 || setns(there, CLONE_NEWNET) != 0)
        fail(namespace);
    device = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (device < 0)
        fail("/dev/net/tun");
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    if (ioctl(device, TUNSETIFF, &request) != 0)
        fail(name);
    if (setns(home, CLONE_NEWNET) != 0)
        fail("the namespace it was started in");
    close(there);
    close(home);
    return device;
}

static void answer_reset(struct relay *relay, enum direction sender, uint32_t number)
{
    uint8_t packet[RESET_SIZE];
    size_t size = reset_for(&relay->flows.flow[number], sender, packet);

    if (write(relay->device[sender], packet, size) < 0)
        relay->link[sender].counters.drops[DROP_device]++;
}

static void take_in(struct relay *relay, enum direction direction)
{
    struct link *link = &relay->link[direction];
    int64_t now = now_ns();

    for (int n = 0; n < BATCH; n++) {
        uint32_t slot = link_take(link), number;
        struct packet *packet;
        uint8_t rest[1];
        ssize_t size;

        if (slot == NO_PACKET) { /* read it all the same, or the device would fill up unseen */
            if (read(relay->device[direction], rest, sizeof rest) < 0)
                return;
            link->counters.packets_in++;
            link->counters.drops[DROP_pool]++;
            continue;
        }
        packet = link_packet(link, slot);
        size = read(relay->device[direction], packet->data, relay->mtu);
        if (size < 0) {
            link_give(link, slot);
            return;
        }
        packet->size = (uint32_t)size;
        if (link_arrive(link, &relay->flows, slot, now)) {
            number = packet->flow;
            link_give(link, slot);
            answer_reset(relay, direction, number);
        }
    }
}

static void send_out(struct relay *relay, enum direction direction)
{
    struct link *link = &relay->link[direction];
    int64_t now = now_ns();
    uint32_t slot;

    for (int n = 0; n < BATCH && (slot = link_due(link, now)) != NO_PACKET; n++) {
        struct packet *packet = link_packet(link, slot);
        struct flow *flow = &relay->flows.flow[packet->flow];
        int64_t late = now - packet->at;

        if (flow->state != FLOW_OPEN) {
            link->counters.drops[DROP_flow]++;
        } else if (write(relay->device[other(direction)], packet->data, packet->size) < 0) {
            link->counters.drops[DROP_device]++; /* it is down */
        } else {
            link->counters.packets_out++;
            link->counters.bytes_out += packet->size;
            flow->packets[direction]++;
            flow->bytes[direction] += packet->size;
            link->counters.late_ns += late;
            if (late > link->counters.late_peak_ns)
                link->counters.late_peak_ns = late;
        }
        link_give(link, slot);
    }
}

#define KEYS(X)                                                                                    \
    X(delay_ns, int64_t, 0, 60e9)                                                                  \
    X(jitter_ns, int64_t, 0, 60e9)                                                                 \
    X(loss, double, 0, 1)                                                                          \
    X(reorder, double, 0, 1)                                                                       \
    X(reorder_ns, int64_t, 0, 60e9)                                                                \
    X(rate_bps, double, 0, 1e12)                                                                   \
    X(queue_bytes, int64_t, 0, 1e12)                                                               \
    X(ecn_bytes, int64_t, 0, 1e12)

static bool number_in(const char *text, double least, double most, double *ret_value)
{
    char *end;

    if (text == NULL)
        return false;
    *ret_value = strtod(text, &end);
    return *end == '\0' && end != text && *ret_value >= least && *ret_value <= most;
}

static const char *set_key(struct link_settings *settings, const char *key, const char *value)
{
    double number;

#define X(name, type, least, most)                                                                 \
    if (strcmp(key, #name) == 0) {                                                                 \
        if (!number_in(value, least, most, &number))                                               \
            return "error a value is missing or out of bounds: " #name;                            \
        settings->name = (type)number;                                                             \
        return NULL;                                                                               \
    }
    KEYS(X)
#undef X
    return "error no such key";
}

static const char *command_set(struct relay *relay, char **words)
{
    const char *which = strsep(words, " ");
    bool known = false;

    for (int n = 0; n < DIRECTIONS; n++) {
        struct link_settings settings = relay->link[n].settings;
        char copy[LINE_SIZE], *rest = copy, *key;

        if (which == NULL || (strcmp(which, names[n]) != 0 && strcmp(which, "both") != 0))
            continue;
        known = true;
        snprintf(copy, sizeof copy, "%s", *words == NULL ? "" : *words);
        while ((key = strsep(&rest, " ")) != NULL && *key != '\0') {
            const char *wrong = set_key(&settings, key, strsep(&rest, " "));

            if (wrong != NULL)
                return wrong;
        }
        link_set(&relay->link[n], &settings);
    }
    return known ? "ok" : "error the direction is ab, ba or both";
}

static const char *command_police(struct relay *relay, char **words)
{
    struct flows *flows = &relay->flows;
    unsigned count = flows->rule_count;
    const char *rate = strsep(words, " "), *burst;
    double rate_bps, burst_bytes;
    char *range;

    if (rate != NULL && strcmp(rate, "none") == 0) {
        flows->rule_count = 0;
        flows_police(flows);
        return "ok";
    }
    burst = strsep(words, " ");
    if (!number_in(rate, 0, 1e12, &rate_bps) || !number_in(burst, 0, 1e12, &burst_bytes))
        return "error police RATE_BPS BURST_BYTES FLOWS, or police none";
    while ((range = strsep(words, ",")) != NULL) {
        char *last = range;
        const char *first = strsep(&last, "-");
        double from, to;

        if (!number_in(first, 1, UINT32_MAX, &from))
            return "error flows are numbers from 1, or FIRST-LAST";
        to = from;
        if (last != NULL && !number_in(last, from, UINT32_MAX, &to))
            return "error flows are numbers from 1, or FIRST-LAST";
        if (count == RULE_LIMIT)
            return "error too many rules; police none clears them";
        flows->rules[count++] = (struct rule){(uint32_t)from, (uint32_t)to, rate_bps, burst_bytes};
    }
    flows->rule_count = count;
    flows_police(flows);
    return "ok";
}

static const char *command_flow(struct relay *relay, char **words)
{
    static const char *const states[] = {"open", "blackhole", "reset"};
    double number;

    if (!number_in(strsep(words, " "), 1, relay->flows.count, &number))
        return "error no such flow has appeared";
    for (int n = 0; n < 3; n++) {
        if (*words == NULL || strcmp(*words, states[n]) != 0)
            continue;
        relay->flows.flow[(uint32_t)number].state = (enum flow_state)n;
        if (n == FLOW_RESET) {
            answer_reset(relay, A_TO_B, (uint32_t)number);
            answer_reset(relay, B_TO_A, (uint32_t)number);
        }
        return "ok";
    }
    return "error a flow is open, blackhole or reset";
}

static void print_statistics(const struct relay *relay)
{
    static const char *const causes[] = {
#define X(name) #name,
        DROP_CAUSES(X)
#undef X
    };

    printf("ok {\"flows\":%" PRIu32 ",\"unnumbered\":%" PRIu64, relay->flows.count,
           relay->flows.unnumbered);
    for (int n = 0; n < DIRECTIONS; n++) {
        const struct link_counters *c = &relay->link[n].counters;

        printf(",\"%s\":{\"packets_in\":%" PRIu64 ",\"bytes_in\":%" PRIu64
               ",\"packets_out\":%" PRIu64 ",\"bytes_out\":%" PRIu64 ",\"ce_marked\":%" PRIu64
               ",\"held_back\":%" PRIu64,
               names[n], c->packets_in, c->bytes_in, c->packets_out, c->bytes_out, c->ce_marked,
               c->held_back);
        printf(",\"queue_bytes\":%" PRId64 ",\"queue_peak_bytes\":%" PRId64
               ",\"queue_peak_ms\":%.4f,\"queue_mean_ms\":%.4f",
               relay->link[n].queue_bytes, c->queue_peak_bytes, (double)c->queue_peak_ns / 1e6,
               c->queued == 0 ? 0.0 : (double)c->queue_ns / 1e6 / (double)c->queued);
        printf(",\"late_peak_ms\":%.4f,\"late_mean_ms\":%.4f,\"drops\":{",
               (double)c->late_peak_ns / 1e6,
               c->packets_out == 0 ? 0.0 : (double)c->late_ns / 1e6 / (double)c->packets_out);
        for (int cause = 0; cause < DROP_KINDS; cause++)
            printf("%s\"%s\":%" PRIu64, cause == 0 ? "" : ",", causes[cause], c->drops[cause]);
        printf("}}");
    }
    printf("}\n");
}

static void print_flows(const struct relay *relay)
{
    printf("ok [");
    for (uint32_t number = 1; number <= relay->flows.count; number++) {
        const struct flow *flow = &relay->flows.flow[number];

        printf("%s{\"number\":%" PRIu32 ",\"state\":%d,\"police_bps\":%.0f", number == 1 ? "" : ",",
               number, (int)flow->state, flow->police_bps);
        for (int n = 0; n < DIRECTIONS; n++) {
            uint8_t address[4];

            memcpy(address, &flow->address[n], sizeof address);
            printf(",\"%s\":{\"address\":\"%d.%d.%d.%d\",\"port\":%d,\"packets\":%" PRIu64
                   ",\"bytes\":%" PRIu64 ",\"policed\":%" PRIu64 "}",
                   names[n], address[0], address[1], address[2], address[3],
                   (flow->port[n] & 255) << 8 | flow->port[n] >> 8, flow->packets[n],
                   flow->bytes[n], flow->policed[n]);
        }
        printf("}");
    }
    printf("]\n");
}

static void command(struct relay *relay, char *line)
{
    const char *name = strsep(&line, " ");
    const char *answer = "error no such command";

    if (strcmp(name, "set") == 0)
        answer = command_set(relay, &line);
    else if (strcmp(name, "police") == 0)
        answer = command_police(relay, &line);
    else if (strcmp(name, "flow") == 0)
        answer = command_flow(relay, &line);
    if (strcmp(name, "clear") == 0) {
        for (int n = 0; n < DIRECTIONS; n++)
            memset(&relay->link[n].counters, 0, sizeof relay->link[n].counters);
        answer = "ok";
    }
    if (strcmp(name, "statistics") == 0)
        print_statistics(relay);
    else if (strcmp(name, "flows") == 0)
        print_flows(relay);
    else
        printf("%s\n", answer);
    fflush(stdout);
}

/* False at the end of the commands. */
static bool take_commands(struct relay *relay)
{
    ssize_t count = read(STDIN_FILENO, relay->line + relay->line_used,
                         sizeof relay->line - 1 - relay->line_used);
    char *end;

    if (count <= 0)
        return count < 0 && (errno == EINTR || errno == EAGAIN);
    relay->line_used += (size_t)count;
    relay->line[relay->line_used] = '\0';
    while ((end = strchr(relay->line, '\n')) != NULL) {
        *end++ = '\0';
        command(relay, relay->line);
        relay->line_used -= (size_t)(end - relay->line);
        memmove(relay->line, end, relay->line_used + 1);
    }
    return relay->line_used < sizeof relay->line - 1;
}

static void serve(struct relay *relay)
{
    struct pollfd ready[] = {{.fd = relay->device[A_TO_B], .events = POLLIN},
                             {.fd = relay->device[B_TO_A], .events = POLLIN},
                             {.fd = STDIN_FILENO, .events = POLLIN}};

    for (;;) {
        int64_t wake = INT64_MAX, now = now_ns();
        struct timespec timeout = {.tv_sec = 3600};

        for (int n = 0; n < DIRECTIONS; n++) {
            int64_t mine = link_wake(&relay->link[n]);

            wake = mine < wake ? mine : wake;
        }
        if (wake != INT64_MAX) {
            int64_t wait = wake - now;

            /* Overdue is what a full batch left behind: that must not sleep. */
            wait = wait < 0 ? 0 : wait < QUANTUM_NS ? QUANTUM_NS : wait;
            timeout.tv_sec = wait / 1000000000;
            timeout.tv_nsec = wait % 1000000000;
        }
        if (ppoll(ready, 3, &timeout, NULL) < 0 && errno != EINTR)
            fail("ppoll");
        if (ready[2].revents != 0 && !take_commands(relay))
            return;
        for (int n = 0; n < DIRECTIONS; n++)
            if (ready[n].revents != 0)
                take_in(relay, (enum direction)n);
        for (int n = 0; n < DIRECTIONS; n++)
            send_out(relay, (enum direction)n);
    }
}

int main(int argc, char **argv)
{
    static struct relay relay; /* the tables of flows are no load for a stack */
    const struct sched_param first = {.sched_priority = 1};
    double mtu, pool_bytes;

    if (argc != 7 || !number_in(argv[4], 68, 65521, &mtu) ||
        !number_in(argv[5], 1 << 20, 1e12, &pool_bytes)) {
        fprintf(stderr, "usage: relay NAMESPACE_A NAMESPACE_B DEVICE MTU POOL_BYTES SEED\n");
        return 2;
    }
    relay.mtu = (size_t)mtu;
    for (int n = 0; n < DIRECTIONS; n++) {
        relay.device[n] = open_device(argv[1 + n], argv[3]);
        if (link_open(&relay.link[n], (enum direction)n, relay.mtu, (size_t)pool_bytes,
                      strtoull(argv[6], NULL, 10)) != 0)
            fail("memory for packets");
    }
    prctl(PR_SET_TIMERSLACK, 1UL); /* the default makes every wake-up 50 us later still */
    /* A real path does not wait for a processor that its users keep busy: on two busy cores packets
     * were late by 0.03 ms on average with this and by up to 11 ms without, and a nice value does
     * not reach across the kernel's groups of sessions. Where it is refused, packets are late, and
     * counted as such. */
    if (sched_setscheduler(0, SCHED_FIFO, &first) != 0)
        fprintf(stderr, "relay: no real-time priority: %s\n", strerror(errno));
    printf("ok\n");
    fflush(stdout);
    serve(&relay);
    return 0;
}
