/* HDE: which codec a chunk gets; see nc_hde.h. */
#include "nc_hde.h"

#include <string.h>

#include "nc_codec.h"

static const struct {
    uint8_t codec;
    int8_t level;
} RUNGS[NC_HDE_RUNGS] = {
    {NC_CODEC_RAW, 0},  {NC_CODEC_LZ4, 1},  {NC_CODEC_ZSTD, -5}, {NC_CODEC_ZSTD, 1},
    {NC_CODEC_ZSTD, 3}, {NC_CODEC_ZSTD, 6}, {NC_CODEC_ZSTD, 9},
};

/* Ratios of the sample at which the next class begins, and one in the middle of each class. */
static const double CLASS_FROM[NC_HDE_CLASSES] = {0, 1.03, 1.15, 1.4, 1.8, 2.5, 4, 8};
static const double CLASS_RATIO[NC_HDE_CLASSES] = {1, 1.08, 1.25, 1.6, 2.1, 3.1, 5.5, 15};

/* Guesses until something was measured, on one core of a 2020s server: nanoseconds a byte, of what
 * cannot be compressed, of what can, and of what nearly vanishes; and how much more than by the
 * sample's lz4 a rung gains (ratio - 1 as a multiple). They are wrong by some factor everywhere,
 * which nc_hde_chooser.machine corrects as soon as one rung was measured. */
static const struct {
    double ns[3];
    double gain;
} GUESS[NC_HDE_RUNGS] = {
    {{0, 0, 0}, 0},         {{0.12, 1.2, 0.4}, 1}, {{0.25, 1.35, 0.5}, 1.1}, {{0.3, 1.9, 0.6}, 1.7},
    {{0.8, 3.4, 0.9}, 1.9}, {{4, 9, 3}, 2.1},      {{10, 22, 6}, 2.15},
};

/* What is not known of a link: 400 Mbit/s, where neither the cheapest nor the dearest rung is far
 * from right, and the one between them is soon found to be too slow on a faster one. */
#define LINK_GUESS 0.05
/* Bytes of a window that say something about a link: less may be what a token bucket on the path,
 * or a queue, lets through before its rate begins. */
#define EVIDENCE_BYTES 1e6
/* Times what a link was believed to take that it is believed to take next, on the word of a burst.
 */
#define MOST_RAISE 4
#define LEARN 0.25
/* The last bytes that a cost is the mean of, about. */
#define COST_BYTES 16e6
/* A class tries a rung beside its best every so many chunks, if that is not sure to be much worse:
 * a share of its chunks that cannot cost more than 0.5 % of the time. */
#define EXPLORE_EVERY 64
#define EXPLORE_ABOVE 0.7
/* What was never measured is a guess, and tried once if it would be better were it this many times
 * as fast as guessed. */
#define TRY_TIMES 3
/* Chunks after which what was measured is worth being measured again. */
#define STALE 256
/* A rung has to be this much better than the one in use. */
#define BETTER 1.02
#define FIRST_WINDOW_NS UINT64_C(5000000)
#define WINDOW_NS UINT64_C(100000000)
#define AGAIN_WINDOWS 2
#define FIRST_HOLD_NS UINT64_C(1000000000)
#define LAST_HOLD_NS UINT64_C(16000000000)
/* A rung's share of a window above which the window says something about it. */
#define MOST 0.8

int nc_hde_codec(int rung)
{
    return RUNGS[rung].codec;
}

int nc_hde_level(int rung)
{
    return RUNGS[rung].level;
}

uint32_t nc_hde_ladder(unsigned codecs, int level_min, int level_max)
{
    uint32_t allowed = 1u << NC_HDE_RAW;

    for (int rung = NC_HDE_RAW + 1; rung < NC_HDE_RUNGS; rung++) {
        bool zstd = RUNGS[rung].codec == NC_CODEC_ZSTD;

        if ((codecs >> RUNGS[rung].codec & 1) == 0)
            continue;
        if (!zstd || (RUNGS[rung].level >= level_min && RUNGS[rung].level <= level_max))
            allowed |= 1u << rung;
    }
    return allowed;
}

static double guessed_ns(int content_class, int rung)
{
    return GUESS[rung].ns[content_class == 0 ? 0 : content_class == NC_HDE_CLASSES - 1 ? 2 : 1];
}

static double guessed_ratio(int content_class, int rung)
{
    return 1 + (CLASS_RATIO[content_class] - 1) * GUESS[rung].gain;
}

void nc_hde_open(struct nc_hde_chooser *chooser, uint32_t allowed, double link)
{
    memset(chooser, 0, sizeof *chooser);
    chooser->allowed = allowed | 1u << NC_HDE_RAW;
    chooser->cores = 1;
    chooser->link_known = link > 0;
    chooser->link = link > 0 ? link * 1e-9 : LINK_GUESS;
    chooser->hold_ns = FIRST_HOLD_NS;
    chooser->content = (struct nc_hde_cost){COST_BYTES, 0.15 * COST_BYTES};
    chooser->wire = (struct nc_hde_cost){COST_BYTES, 0.4 * COST_BYTES};
    chooser->machine = 1;
    for (int rung = 0; rung < NC_HDE_RUNGS; rung++)
        chooser->truth[rung] = 1;
    for (int class = 0; class < NC_HDE_CLASSES; class++) {
        for (int rung = 0; rung < NC_HDE_RUNGS; rung++) {
            struct nc_hde_known *known = &chooser->known[class][rung];

            known->encode_ns = guessed_ns(class, rung);
            known->ratio = guessed_ratio(class, rung);
        }
    }
}

int nc_hde_class(size_t size, size_t coded)
{
    double ratio = coded == 0 || coded >= size ? 1 : (double)size / (double)coded;
    int class = NC_HDE_CLASSES - 1;

    while (class > 0 && ratio < CLASS_FROM[class])
        class--;
    return class;
}

/* The measured rung of the class that is nearest; NC_HDE_RAW: there is none. */
static int nearest_known(const struct nc_hde_chooser *chooser, int content_class, int rung)
{
    for (int step = 1; step < NC_HDE_RUNGS; step++) {
        for (int sign = 1; sign >= -1; sign -= 2) {
            int other = rung + sign * step;

            if (other > NC_HDE_RAW && other < NC_HDE_RUNGS &&
                chooser->known[content_class][other].count > 0)
                return other;
        }
    }
    return NC_HDE_RAW;
}

/* What was measured; or else the guess, corrected by how wrong it was for its neighbour. */
static struct nc_hde_known believed(const struct nc_hde_chooser *chooser, int content_class,
                                    int rung)
{
    struct nc_hde_known known = chooser->known[content_class][rung];
    int neighbour;

    if (known.count > 0 || rung == NC_HDE_RAW)
        return known;
    neighbour = nearest_known(chooser, content_class, rung);
    if (neighbour == NC_HDE_RAW) {
        known.encode_ns *= chooser->machine;
    } else {
        const struct nc_hde_known *other = &chooser->known[content_class][neighbour];
        double gained = guessed_ratio(content_class, neighbour) - 1;

        known.encode_ns *= other->encode_ns / guessed_ns(content_class, neighbour);
        if (gained > 0)
            known.ratio = 1 + (known.ratio - 1) * (other->ratio - 1) / gained;
        if (known.ratio < 1)
            known.ratio = 1;
    }
    return known;
}

/* With an encoder so many times as fast as believed. */
static double goodput_at(const struct nc_hde_chooser *chooser, int content_class, int rung,
                         double times)
{
    const struct nc_hde_known known = believed(chooser, content_class, rung);
    double encoders = chooser->truth[rung] * chooser->cores /
                      (known.encode_ns / times + chooser->content.ns / chooser->content.bytes +
                       chooser->wire.ns / chooser->wire.bytes / known.ratio);
    double link = chooser->link * known.ratio;

    return encoders < link ? encoders : link;
}

double nc_hde_goodput(const struct nc_hde_chooser *chooser, int content_class, int rung)
{
    return goodput_at(chooser, content_class, rung, 1);
}

/* A neighbour of the best on the ladder that is not known, or not any more, and may be as good. */
static int worth_a_try(const struct nc_hde_chooser *chooser, int content_class, int best)
{
    double goodput = nc_hde_goodput(chooser, content_class, best);

    for (int step = 1; step >= -1; step -= 2) {
        int rung = best + step;

        while (rung > NC_HDE_RAW && rung < NC_HDE_RUNGS && (chooser->allowed >> rung & 1) == 0)
            rung += step;
        if (rung <= NC_HDE_RAW || rung >= NC_HDE_RUNGS)
            continue;
        if (chooser->known[content_class][rung].count == 0
                ? goodput_at(chooser, content_class, rung, TRY_TIMES) > goodput * BETTER
                : chooser->known[content_class][rung].age > STALE &&
                      nc_hde_goodput(chooser, content_class, rung) > EXPLORE_ABOVE * goodput)
            return rung;
    }
    return best;
}

int nc_hde_decide(struct nc_hde_chooser *chooser, int content_class, size_t size,
                  enum nc_hde_why *ret_why)
{
    int before = chooser->best[content_class];
    int best = (chooser->allowed >> before & 1) != 0 ? before : NC_HDE_RAW;
    double most = nc_hde_goodput(chooser, content_class, best) * BETTER;
    /* A rung that is not known is tried on one chunk before others follow, unless none is known:
     * all streams choose before the first has an answer. */
    bool measured = nearest_known(chooser, content_class, best) != NC_HDE_RAW ||
                    chooser->known[content_class][best].count > 0;
    int rung;

    for (int other = 0; other < NC_HDE_RUNGS; other++) {
        double goodput = nc_hde_goodput(chooser, content_class, other);

        if (other == best || (chooser->allowed >> other & 1) == 0 || goodput <= most ||
            (chooser->known[content_class][other].trying && measured))
            continue;
        most = goodput;
        best = other;
    }
    if (best != before)
        *ret_why = !chooser->link_known     ? NC_HDE_WHY_START
                   : best > before          ? NC_HDE_WHY_LINK
                   : chooser->encoder_bound ? NC_HDE_WHY_ENCODER
                                            : NC_HDE_WHY_CONTENT;
    chooser->best[content_class] = (uint8_t)best;
    rung = best;
    if (++chooser->explored[content_class] >= EXPLORE_EVERY) {
        chooser->explored[content_class] = 0;
        rung = worth_a_try(chooser, content_class, best);
    }
    for (int other = 0; other < NC_HDE_RUNGS; other++)
        chooser->known[content_class][other].age++;
    if (rung != NC_HDE_RAW && chooser->known[content_class][rung].count == 0) {
        chooser->known[content_class][rung].trying = true;
        if (measured)
            chooser->best[content_class] = (uint8_t)before; /* until it is known to be better */
    }
    chooser->window_bytes[rung] += (double)size;
    chooser->window_predicted_ns += (double)size / nc_hde_goodput(chooser, content_class, rung);
    return rung;
}

static double towards(double old, double seen, double share)
{
    return old + (seen - old) * share;
}

static double within(double value, double least, double most)
{
    return value < least ? least : value > most ? most : value;
}

void nc_hde_learn(struct nc_hde_chooser *chooser, int content_class, int rung, size_t size,
                  size_t wire, double encode_ns)
{
    struct nc_hde_known *known = &chooser->known[content_class][rung];
    double ratio = (double)size / (double)(wire > 0 ? wire : 1);
    double ns = encode_ns / (double)size;
    double share = known->count == 0 ? 1 : LEARN;

    if (rung == NC_HDE_RAW)
        return; /* costs nothing, gains nothing */
    known->ratio = towards(known->ratio, ratio, share);
    known->encode_ns = towards(known->encode_ns, ns, share);
    known->age = 0;
    known->trying = false;
    if (known->count < UINT32_MAX)
        known->count++;
    chooser->machine =
        within(towards(chooser->machine, ns / guessed_ns(content_class, rung), 0.1), 0.1, 20);
}

static void add(struct nc_hde_cost *cost, double bytes, double ns)
{
    cost->bytes += bytes;
    cost->ns += ns;
    if (cost->bytes > COST_BYTES) {
        double share = COST_BYTES / cost->bytes;

        cost->bytes *= share;
        cost->ns *= share;
    }
}

void nc_hde_learn_rest(struct nc_hde_chooser *chooser, size_t size, double content_ns, size_t wire,
                       double wire_ns)
{
    add(&chooser->content, (double)size, content_ns);
    add(&chooser->wire, (double)wire, wire_ns);
}

/* The window was bound by the encoders, so that it tells how wrong their prediction is: the CPUs
 * may be others' as well, the receiver's among them on the same host. */
static void correct(struct nc_hde_chooser *chooser, const struct nc_hde_window *window)
{
    double all = 0;

    for (int rung = 0; rung < NC_HDE_RUNGS; rung++)
        all += chooser->window_bytes[rung];
    for (int rung = 0; rung < NC_HDE_RUNGS; rung++) {
        if (all <= 0 || chooser->window_bytes[rung] < MOST * all)
            continue;
        /* What was decided in a window and what was acknowledged in it are not the same chunks. */
        double seen = window->content / all * chooser->window_predicted_ns / window->ns;

        chooser->truth[rung] =
            within(chooser->truth[rung] * towards(1, within(seen, 0.5, 1.5), 0.3), 0.2, 1.2);
    }
}

uint64_t nc_hde_window_ns(const struct nc_hde_chooser *chooser)
{
    uint64_t ns = FIRST_WINDOW_NS << (chooser->windows < 8 ? chooser->windows : 8);

    return ns < WINDOW_NS ? ns : WINDOW_NS;
}

void nc_hde_observe(struct nc_hde_chooser *chooser, const struct nc_hde_window *window)
{
    double rate = window->wire / window->ns;

    chooser->windows++;
    chooser->cores = window->cores > 0 ? window->cores : 1;
    if (!window->held) {
        chooser->encoder_bound = window->idle < NC_HDE_BUSY_IDLE;
        if (!chooser->encoder_bound) {
            /* The threads waited for the link: it takes no more than this. */
            if (chooser->raised) {
                bool wrong = rate < 0.7 * chooser->raised_to;

                chooser->raised = false;
                chooser->hold_ns = !wrong                                ? FIRST_HOLD_NS
                                   : chooser->hold_ns * 2 > LAST_HOLD_NS ? LAST_HOLD_NS
                                                                         : chooser->hold_ns * 2;
                chooser->hold_until_ns = wrong ? window->now_ns + chooser->hold_ns : 0;
                if (wrong)
                    chooser->link = rate;
            }
            chooser->link = chooser->link_known ? towards(chooser->link, rate, 0.5) : rate;
            chooser->link_known = true;
        } else {
            /* A burst may be what a token bucket on the path lets through: in steps, each of which
             * the link is to bear out. */
            double burst = within(window->burst, 0, MOST_RAISE * chooser->link);
            double seen = rate > burst ? rate : burst;

            if (rate > chooser->link && window->wire >= EVIDENCE_BYTES)
                chooser->link = rate; /* this much got over, whatever was believed */
            if (seen > 1.1 * chooser->link && window->wire >= EVIDENCE_BYTES &&
                window->now_ns >= chooser->hold_until_ns) {
                chooser->link = chooser->raised_to = seen;
                chooser->raised = true;
                chooser->link_known = true;
                /* Soon to be borne out, or to be raised further. */
                chooser->windows =
                    chooser->windows < AGAIN_WINDOWS ? chooser->windows : AGAIN_WINDOWS;
            }
            correct(chooser, window);
        }
    }
    memset(chooser->window_bytes, 0, sizeof chooser->window_bytes);
    chooser->window_predicted_ns = 0;
}
