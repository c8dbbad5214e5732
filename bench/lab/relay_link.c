#define _GNU_SOURCE
#include "relay_link.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/mman.h>

enum { IP_HEADER = 20, TCP_HEADER = 20, TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_ACK = 16 };

static uint32_t get32(const uint8_t *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof value);
    return value;
}

static uint16_t get16(const uint8_t *at)
{
    uint16_t value;

    memcpy(&value, at, sizeof value);
    return value;
}

static void put32(uint8_t *at, uint32_t value)
{
    memcpy(at, &value, sizeof value);
}

static void put16(uint8_t *at, uint16_t value)
{
    memcpy(at, &value, sizeof value);
}

/* splitmix64: one stream for each direction and cause, drawn once for each packet whatever the
 * settings are, so that the fate of the n-th packet depends on the seed and on n alone. */
static double chance(uint64_t *state)
{
    uint64_t value = (*state += 0x9e3779b97f4a7c15u);

    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return (double)((value ^ (value >> 31)) >> 11) * 0x1p-53;
}

static void list_append(struct link *link, struct packet_list *list, uint32_t slot)
{
    link_packet(link, slot)->next = NO_PACKET;
    if (list->head == NO_PACKET)
        list->head = slot;
    else
        link_packet(link, list->tail)->next = slot;
    list->tail = slot;
}

static uint32_t list_take(struct link *link, struct packet_list *list)
{
    uint32_t slot = list->head;

    list->head = link_packet(link, slot)->next;
    return slot;
}

int link_open(struct link *link, enum direction direction, size_t mtu, size_t pool_bytes,
              uint64_t seed)
{
    const struct packet_list empty = {NO_PACKET, NO_PACKET, 0};

    memset(link, 0, sizeof *link);
    link->direction = direction;
    link->stride = (sizeof(struct packet) + mtu + 63) / 64 * 64;
    link->slots = (uint32_t)(pool_bytes / link->stride);
    link->unused = NO_PACKET;
    link->queue = link->line = link->held = empty;
    link->loss_seed = seed * 8 + (uint64_t)direction;
    link->jitter_seed = link->loss_seed + 2;
    link->reorder_seed = link->loss_seed + 4;
    link->pool = mmap(NULL, pool_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (link->pool != MAP_FAILED)
        return 0;
    link->pool = NULL;
    return -1;
}

void link_close(struct link *link)
{
    if (link->pool != NULL)
        munmap(link->pool, link->slots * link->stride);
    link->pool = NULL;
}

struct packet *link_packet(const struct link *link, uint32_t slot)
{
    return (struct packet *)(void *)(link->pool + slot * link->stride);
}

uint32_t link_take(struct link *link)
{
    uint32_t slot = link->unused;

    /* Last given back, first taken: the memory touched is what is in flight, and still in cache. */
    if (slot != NO_PACKET)
        link->unused = link_packet(link, slot)->next;
    else if (link->fresh < link->slots)
        slot = link->fresh++;
    return slot;
}

void link_give(struct link *link, uint32_t slot)
{
    link_packet(link, slot)->next = link->unused;
    link->unused = slot;
}

static int64_t transmission_ns(const struct link *link, uint32_t size)
{
    if (link->settings.rate_bps <= 0)
        return 0;
    return (int64_t)(size * 8e9 / link->settings.rate_bps + 0.5);
}

static void plan_head(struct link *link)
{
    const struct packet *head;
    int64_t start;

    if (link->queue.head == NO_PACKET)
        return;
    head = link_packet(link, link->queue.head);
    start = head->at > link->free_at ? head->at : link->free_at;
    link->head_done = start + transmission_ns(link, head->size);
}

void link_set(struct link *link, const struct link_settings *settings)
{
    link->settings = *settings;
    plan_head(link); /* what waits already leaves at the new rate */
}

static void drop(struct link *link, uint32_t slot, enum drop_cause cause)
{
    link->counters.drops[cause]++;
    link_give(link, slot);
}

/* A token bucket; the burst is what a flow may send at once after a pause. */
static bool within_rate(struct flow *flow, enum direction direction, uint32_t size, int64_t now)
{
    double *tokens = &flow->tokens[direction];

    if (flow->police_bps <= 0)
        return true;
    *tokens += (double)(now - flow->tokens_at[direction]) * flow->police_bps / 8e9;
    flow->tokens_at[direction] = now;
    if (*tokens > flow->burst_bytes)
        *tokens = flow->burst_bytes;
    if (*tokens < size) {
        flow->policed[direction]++;
        return false;
    }
    *tokens -= size;
    return true;
}

/* CE, and the header's checksum corrected for it (RFC 1624); not of a sender that cannot. */
static bool mark_congestion(uint8_t *ip)
{
    uint32_t sum;

    if ((ip[1] & 3) == 0)
        return false;
    if ((ip[1] & 3) == 3)
        return true;
    sum = (uint32_t)(uint16_t)~ntohs(get16(ip + 10)) + (uint16_t)~((ip[0] << 8) | ip[1]);
    ip[1] |= 3;
    sum += (uint32_t)((ip[0] << 8) | ip[1]);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    put16(ip + 10, htons((uint16_t)~sum));
    return true;
}

/* Behind the cap: onto the delay line, or among those that the others may overtake. Both keep
 * their own order, so neither needs a heap. */
static void depart(struct link *link, uint32_t slot, int64_t now)
{
    struct packet *packet = link_packet(link, slot);
    struct packet_list *list = packet->held ? &link->held : &link->line;
    double jitter = packet->jitter * (double)link->settings.jitter_ns;
    int64_t at = now + link->settings.delay_ns + (int64_t)jitter;

    if (packet->held)
        at += link->settings.reorder_ns;
    if (at < now)
        at = now;
    if (at < list->last_at)
        at = list->last_at;
    packet->at = list->last_at = at;
    list_append(link, list, slot);
}

bool link_arrive(struct link *link, struct flows *flows, uint32_t slot, int64_t now)
{
    struct packet *packet = link_packet(link, slot);
    struct flow *flow;
    bool lost;

    link->counters.packets_in++;
    link->counters.bytes_in += packet->size;
    if (packet->size < IP_HEADER || packet->data[0] >> 4 != 4) {
        drop(link, slot, DROP_foreign);
        return false;
    }
    lost = chance(&link->loss_seed) < link->settings.loss;
    packet->jitter = 2 * chance(&link->jitter_seed) - 1;
    packet->held = chance(&link->reorder_seed) < link->settings.reorder;
    packet->flow = flow_of(flows, link->direction, packet->data, packet->size);
    packet->at = now;
    flow = &flows->flow[packet->flow];
    if (flow->state != FLOW_OPEN) {
        if (flow->state == FLOW_RESET) {
            link->counters.drops[DROP_flow]++;
            return true;
        }
        drop(link, slot, DROP_flow);
    } else if (lost) {
        drop(link, slot, DROP_loss);
    } else if (!within_rate(flow, link->direction, packet->size, now)) {
        drop(link, slot, DROP_police);
    } else if (link->settings.rate_bps <= 0 && link->queue.head == NO_PACKET) {
        link->counters.held_back += packet->held;
        depart(link, slot, now);
    } else if (link->queue_bytes + packet->size > link->settings.queue_bytes) {
        drop(link, slot, DROP_queue);
    } else {
        if (link->settings.ecn_bytes > 0 && link->queue_bytes > link->settings.ecn_bytes)
            link->counters.ce_marked += mark_congestion(packet->data);
        link->counters.held_back += packet->held;
        link->queue_bytes += packet->size;
        if (link->queue_bytes > link->counters.queue_peak_bytes)
            link->counters.queue_peak_bytes = link->queue_bytes;
        list_append(link, &link->queue, slot);
        if (link->queue.head == slot)
            plan_head(link);
    }
    return false;
}

uint32_t link_due(struct link *link, int64_t now)
{
    struct packet_list *list = &link->line;

    /* In the cap's own time, not in that of the loop: a late wake-up costs the rate nothing. */
    while (link->queue.head != NO_PACKET && link->head_done <= now) {
        uint32_t slot = list_take(link, &link->queue);
        const struct packet *packet = link_packet(link, slot);
        int64_t waited = link->head_done - transmission_ns(link, packet->size) - packet->at;

        link->free_at = link->head_done;
        link->queue_bytes -= packet->size;
        link->counters.queued++;
        link->counters.queue_ns += waited;
        if (waited > link->counters.queue_peak_ns)
            link->counters.queue_peak_ns = waited;
        depart(link, slot, link->free_at);
        plan_head(link);
    }
    if (list->head == NO_PACKET ||
        (link->held.head != NO_PACKET &&
         link_packet(link, link->held.head)->at < link_packet(link, list->head)->at))
        list = &link->held;
    if (list->head == NO_PACKET || link_packet(link, list->head)->at > now)
        return NO_PACKET;
    return list_take(link, list);
}

int64_t link_wake(const struct link *link)
{
    int64_t wake = INT64_MAX;

    /* What leaves the queue is due a delay later: no need to wake up for the departure itself. */
    if (link->queue.head != NO_PACKET)
        wake = link->head_done + link->settings.delay_ns - link->settings.jitter_ns;
    if (link->queue.head != NO_PACKET && wake < link->head_done)
        wake = link->head_done;
    if (link->line.head != NO_PACKET && link_packet(link, link->line.head)->at < wake)
        wake = link_packet(link, link->line.head)->at;
    if (link->held.head != NO_PACKET && link_packet(link, link->held.head)->at < wake)
        wake = link_packet(link, link->held.head)->at;
    return wake;
}

static void police(const struct flows *flows, uint32_t number, struct flow *flow)
{
    double before = flow->police_bps;

    flow->police_bps = 0;
    for (unsigned n = 0; n < flows->rule_count; n++) { /* the last one that fits holds */
        const struct rule *rule = &flows->rules[n];

        if (number >= rule->first && number <= rule->last) {
            flow->police_bps = rule->rate_bps;
            flow->burst_bytes = rule->burst_bytes;
        }
    }
    if (before <= 0)
        flow->tokens[A_TO_B] = flow->tokens[B_TO_A] = flow->burst_bytes;
}

void flows_police(struct flows *flows)
{
    for (uint32_t number = 1; number <= flows->count; number++)
        police(flows, number, &flows->flow[number]);
}

uint32_t flow_of(struct flows *flows, enum direction direction, const uint8_t *ip, size_t size)
{
    const size_t mask = sizeof flows->table / sizeof flows->table[0] - 1;
    const enum direction other = direction == A_TO_B ? B_TO_A : A_TO_B;
    const size_t header = (size_t)(ip[0] & 15) * 4;
    const uint8_t *tcp = ip + header;
    struct flow key = {0}, *flow;
    size_t place;
    uint32_t sequence, length, number;

    /* Behind the first fragment there are no ports. */
    if (header < IP_HEADER || ip[9] != IPPROTO_TCP || (ntohs(get16(ip + 6)) & 0x1fff) != 0 ||
        size < header + TCP_HEADER)
        return 0;
    key.address[direction] = get32(ip + 12);
    key.address[other] = get32(ip + 16);
    key.port[direction] = get16(tcp);
    key.port[other] = get16(tcp + 2);
    place = (size_t)((((uint64_t)key.address[0] << 32 | key.address[1]) ^
                      ((uint64_t)key.port[0] << 16 | key.port[1]) * 0x9e3779b97f4a7c15u) *
                         0xff51afd7ed558ccdu >>
                     40);
    for (;; place++) {
        number = flows->table[place & mask];
        if (number == 0)
            break;
        flow = &flows->flow[number];
        if (memcmp(flow->address, key.address, sizeof key.address) == 0 &&
            memcmp(flow->port, key.port, sizeof key.port) == 0)
            break;
    }
    if (number == 0) {
        if (flows->count == FLOW_LIMIT) {
            flows->unnumbered++;
            return 0;
        }
        number = flows->table[place & mask] = ++flows->count;
        flows->flow[number] = key;
        police(flows, number, &flows->flow[number]);
    }
    flow = &flows->flow[number];
    sequence = ntohl(get32(tcp + 4));
    length = (uint32_t)(size - header - (size_t)(tcp[12] >> 4) * 4);
    flow->next_sequence[direction] = sequence + length + ((tcp[13] & (TCP_SYN | TCP_FIN)) != 0);
    flow->acked[direction] = (tcp[13] & TCP_ACK) != 0;
    flow->last_ack[direction] = ntohl(get32(tcp + 8));
    return number;
}

static uint32_t sum16(const uint8_t *data, size_t size, uint32_t sum)
{
    for (size_t n = 0; n < size; n += 2)
        sum += (uint32_t)data[n] << 8 | data[n + 1];
    return sum;
}

static uint16_t folded(uint32_t sum)
{
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return htons((uint16_t)~sum);
}

size_t reset_for(const struct flow *flow, enum direction direction, uint8_t *ret_ip)
{
    const enum direction other = direction == A_TO_B ? B_TO_A : A_TO_B;
    uint8_t *tcp = ret_ip + IP_HEADER;

    memset(ret_ip, 0, IP_HEADER + TCP_HEADER);
    ret_ip[0] = 0x45;
    ret_ip[3] = IP_HEADER + TCP_HEADER;
    ret_ip[8] = 64;
    ret_ip[9] = IPPROTO_TCP;
    put32(ret_ip + 12, flow->address[other]);
    put32(ret_ip + 16, flow->address[direction]);
    put16(ret_ip + 10, folded(sum16(ret_ip, IP_HEADER, 0)));
    put16(tcp, flow->port[other]);
    put16(tcp + 2, flow->port[direction]);
    tcp[12] = TCP_HEADER / 4 << 4;
    tcp[13] = TCP_RST;
    /* RFC 9293, 3.5.2: after what the end acknowledged, or, to one that has acknowledged nothing,
     * an acknowledgement of its SYN. */
    if (flow->acked[direction]) {
        put32(tcp + 4, htonl(flow->last_ack[direction]));
    } else {
        tcp[13] |= TCP_ACK;
        put32(tcp + 8, htonl(flow->next_sequence[direction]));
    }
    put16(tcp + 16, folded(sum16(ret_ip + 12, 8 + TCP_HEADER, IPPROTO_TCP + TCP_HEADER)));
    return IP_HEADER + TCP_HEADER;
}
