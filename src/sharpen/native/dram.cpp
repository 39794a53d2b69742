// A DRAM channel and its controller, command by command. Integers alone, so that results are those
// of the twin, sharpen/problems/arch/dram_twin.py; the rules stand in sharpen/problems/arch/dram.py.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

namespace {

constexpr int64_t kNever = INT64_MAX / 4;

enum Kind { kAct, kPre, kPreAll, kRead, kReadPre, kWrite, kWritePre, kRefresh };
enum Page { kOpen, kOpenAdaptive, kClosed, kClosedAdaptive };
enum Scheduler { kFifo, kFrFcfsGrp, kFrFcfs };
enum Buffer { kBankwise, kReadWrite, kShared };
enum Arbiter { kSimple, kPerSource, kReorder };

struct Setup {  // in the order of dram_twin.Setup
    int64_t ranks, groups, banks, cl, cwl, burst, rcd, rp, rp_all, ras, rc, rrd_s, rrd_l, faw,
        ccd_s, ccd_l, wr, wtr_s, wtr_l, rtp, refi, rfc, rtrs, turnaround, ppd, act_cycles,
        pre_cycles, cas_cycles, ref_cycles, page, scheduler, buffer, size, in_order, refreshes,
        postponed, pulled_in, arbiter, most_active, sources;
};

struct Trace {  // each [n]
    int64_t n;
    const int64_t *at, *after, *is_write, *bank, *row, *line, *source;
};

struct Bank {  // times are the earliest for a command of that kind
    int64_t open = -1, act = 0, cas = 0, pre = 0;
    int64_t first = -1, last = -1, chosen = -1, began = 0;
    bool is_stale = false, is_fresh = false;
};

struct Rank {
    int64_t read = 0, write = 0, act = 0, pre = 0;
    int64_t four[4] = {-kNever, -kNever, -kNever, -kNever}, oldest = 0;
    int64_t queued = 0, quiet = 0, issued = 0, force = 0, early = 0;
    std::vector<int64_t> group_read, group_write, group_act;
    std::vector<std::pair<int64_t, int64_t>> open;  // when rows were open, by when that began
};

struct Lane {  // requests that come in one after another
    std::vector<int64_t> queue;
    int64_t head = 0, active = 0, answered = 0, last = 0;
};

class Channel {
  public:
    Channel(const Setup& setup, const Trace& trace, int64_t* begin, int64_t* finish, int64_t* log)
        : c(setup), t(trace), begin(begin), finish(finish), log(log) {
        per_rank = c.groups * c.banks;
        banks.resize(c.ranks * per_rank);
        occupied.assign(banks.size(), 0);
        ranks.resize(c.ranks);
        for (auto& rank : ranks)
            for (auto* times : {&rank.group_read, &rank.group_write, &rank.group_act})
                times->assign(c.groups, 0);
        to_write = std::max(c.cl + c.burst + c.turnaround - c.cwl, c.ccd_l);
        closing = std::max(c.ras, c.cwl + c.burst + c.wr) + c.rp_all + 8 + 4 * c.ranks * c.act_cycles;
        for (int64_t r = 0; r < c.ranks; ++r) plan_refresh(r);
        for (auto* links : {&next, &previous, &data, &answered}) links->assign(t.n, -1);
        order.assign(t.n, 0);
        std::fill(finish, finish + t.n, -1);
        high = c.size - c.size / 4;
        low = c.size / 4;
        const bool is_one = c.arbiter == kSimple;
        lanes.resize(is_one ? 1 : c.sources);
        for (int64_t i = 0; i < t.n; ++i) lanes[is_one ? 0 : t.source[i]].queue.push_back(i);
        entered.reserve(t.n);
    }

    // Whether all requests were served.
    bool run() {
        int64_t now = 0;
        while (delivered < t.n) {
            while (!releases.empty() && releases.top().first <= now) {
                --lanes[releases.top().second].active;
                releases.pop();
            }
            int64_t then = admit(now);
            was_served = false;
            then = std::min(then, bus <= now ? command(now) : bus);
            if (was_served && is_held) then = now + 1;
            if (then >= kNever) return delivered == t.n;
            now = std::max(then, now + 1);
        }
        return true;
    }

    void count(int64_t* counts) {
        int64_t end = 0, active = 0;
        for (int64_t i = 0; i < t.n; ++i) end = std::max(end, finish[i]);
        for (int64_t b = 0; b < int64_t(banks.size()); ++b)
            if (banks[b].open >= 0) ranks[b / per_rank].open[banks[b].began].second = end;
        for (const auto& rank : ranks) {
            int64_t covered = 0;
            for (const auto& [from, to] : rank.open) {
                active += std::max<int64_t>(std::min(to, end) - std::max(from, covered), 0);
                covered = std::max(covered, std::min(to, end));
            }
        }
        const int64_t found[] = {end,
                                 kinds[kAct],
                                 kinds[kRead] + kinds[kReadPre],
                                 kinds[kWrite] + kinds[kWritePre],
                                 kinds[kRefresh],
                                 hits,
                                 active,
                                 commands};
        std::copy(std::begin(found), std::end(found), counts);
    }

  private:
    // -- requests come in ---------------------------------------------------------------------------

    int64_t ready(int64_t i) const {
        if (t.after[i] < 0) return t.at[i];
        return finish[t.after[i]] < 0 ? kNever : finish[t.after[i]] + t.at[i];
    }

    bool has_room(int64_t i) const {
        if (c.buffer == kBankwise) return occupied[t.bank[i]] < c.size;
        if (c.buffer == kReadWrite) return waiting[t.is_write[i]] < c.size;
        return waiting[0] + waiting[1] < c.size;
    }

    // Whether no older request of the other kind, which it might overtake, waits for its line.
    bool is_safe(int64_t i) const {
        if (c.buffer != kReadWrite && c.scheduler != kFrFcfsGrp) return true;
        for (int64_t k = banks[t.bank[i]].first; k >= 0; k = next[k])
            if (t.line[k] == t.line[i] && t.is_write[k] != t.is_write[i]) return false;
        return true;
    }

    // Lets at most one request in, the lanes in turn; when to look again.
    int64_t admit(int64_t now) {
        int64_t then = kNever;
        const int64_t count = lanes.size(), first = turn;
        bool is_taken = false;
        is_held = false;
        for (int64_t k = 0; k < count; ++k) {
            const int64_t number = (first + k) % count;
            Lane& lane = lanes[number];
            if (lane.head == int64_t(lane.queue.size())) continue;
            const int64_t i = lane.queue[lane.head], from = ready(i);
            if (from > now) {
                then = std::min(then, from);
            } else if (lane.active >= c.most_active) {
                then = std::min(then, releases.empty() ? kNever : releases.top().first);
            } else if (!has_room(i) || !is_safe(i)) {
                is_held = true;
            } else if (is_taken) {
                then = now + 1;
            } else {
                begin[i] = from;
                ++lane.active;
                if (++lane.head < int64_t(lane.queue.size())) then = now + 1;
                enter(i);
                turn = (number + 1) % count;
                is_taken = true;
            }
        }
        return then;
    }

    void enter(int64_t i) {
        Bank& bank = banks[t.bank[i]];
        previous[i] = bank.last;
        (bank.last < 0 ? bank.first : next[bank.last]) = i;
        bank.last = i;
        order[i] = entered.size();
        entered.push_back(i);
        count_waiting(i, 1);
    }

    void leave(int64_t i) {
        Bank& bank = banks[t.bank[i]];
        (previous[i] < 0 ? bank.first : next[previous[i]]) = next[i];
        (next[i] < 0 ? bank.last : previous[next[i]]) = previous[i];
        count_waiting(i, -1);
    }

    void count_waiting(int64_t i, int64_t change) {
        const int64_t b = t.bank[i];
        const uint64_t bit = uint64_t(1) << b;
        banks[b].is_stale = true;
        busy = banks[b].first < 0 ? busy & ~bit : busy | bit;
        occupied[b] += change;
        waiting[t.is_write[i]] += change;
        ranks[b / per_rank].queued += change;
        if (c.buffer != kReadWrite) return;
        const int64_t reads = waiting[0], writes = waiting[1], old = mode;
        if (!mode && (writes >= high || (writes && !reads))) mode = 1;
        else if (mode && (!writes || (writes <= low && reads))) mode = 0;
        if (mode != old) forget_choices();
    }

    // -- commands go out ----------------------------------------------------------------------------

    void forget_choices() {
        for (auto& bank : banks) bank.is_stale = true;
    }

    // The request that a bank works on.
    void choose(Bank& bank) {
        int64_t oldest = -1, hit = -1;
        for (int64_t i = bank.first; i >= 0; i = next[i]) {
            if (c.buffer == kReadWrite && t.is_write[i] != mode) continue;
            if (oldest < 0) oldest = i;
            if (c.scheduler == kFifo) break;
            if (t.row[i] != bank.open) continue;
            if (hit < 0) hit = i;
            if (c.scheduler == kFrFcfs) break;
            if (t.is_write[i] == last_kind) {
                hit = i;
                break;
            }
        }
        bank.chosen = hit < 0 ? oldest : hit;
        bank.is_stale = false;
    }

    // Issues the command of least class, then of the oldest request, that may go out now: a refresh
    // that must be (0), data (1), rows (2), a refresh that may be (3). When to look again.
    int64_t command(int64_t now) {
        int64_t then = kNever, best_class = 4, best = kNever, target = -1;
        Kind kind = kAct;
        uint64_t refused = 0;
        for (int64_t r = 0; c.refreshes && r < c.ranks; ++r) {
            const Rank& rank = ranks[r];
            const bool is_forced = now >= rank.force;
            if (is_forced) {
                refused |= ((uint64_t(2) << (per_rank - 1)) - 1) << (r * per_rank);
            } else {
                then = std::min(then, rank.force);
                if (rank.queued) continue;
                const int64_t wanted = std::max(rank.early, rank.quiet + c.rfc);
                if (now < wanted) {
                    then = std::min(then, wanted);
                    continue;
                }
            }
            int64_t closed = 0, opened = -1;
            for (int64_t b = r * per_rank; b < (r + 1) * per_rank; ++b) {
                closed = std::max(closed, banks[b].act);
                if (banks[b].open >= 0) opened = std::max(opened, banks[b].pre);
            }
            const int64_t from = opened < 0 ? closed : std::max(opened, rank.pre);
            const int64_t its_class = is_forced ? 0 : 3;
            if (from > now) {
                then = std::min(then, from);
            } else if (its_class < best_class) {
                best_class = its_class;
                target = r;
                kind = opened < 0 ? kRefresh : kPreAll;
            }
        }
        for (uint64_t left = busy & ~refused; left; left &= left - 1) {
            const int64_t b = __builtin_ctzll(left);
            Bank& bank = banks[b];
            if (bank.is_stale) choose(bank);
            const int64_t i = bank.chosen;
            if (i < 0) continue;
            const Rank& rank = ranks[b / per_rank];
            const int64_t group = b % per_rank / c.banks;
            int64_t from, its_class = 2;
            Kind wanted;
            if (bank.open == t.row[i]) {
                const bool is_write = t.is_write[i];
                wanted = is_write ? kWrite : kRead;
                from = std::max({bank.cas, is_write ? rank.write : rank.read,
                                 (is_write ? rank.group_write : rank.group_read)[group]});
                its_class = 1;
            } else if (bank.open >= 0) {
                wanted = kPre;
                from = std::max(bank.pre, rank.pre);
            } else {
                wanted = kAct;
                from = std::max({bank.act, rank.act, rank.group_act[group],
                                 rank.four[rank.oldest] + c.faw});
            }
            if (from > now) {
                then = std::min(then, from);
            } else if (its_class < best_class || (its_class == best_class && order[i] < best)) {
                best_class = its_class;
                best = order[i];
                target = b;
                kind = wanted;
            }
        }
        if (best_class == 4) return then;
        if (kind == kRefresh) refresh(now, target);
        else if (kind == kPreAll) close_all(now, target);
        else if (kind == kPre) close_one(now, target);
        else if (kind == kAct) activate(now, target);
        else transfer(now, target);
        return bus;
    }

    void issue(int64_t now, Kind kind, int64_t rank, int64_t bank, int64_t row, int64_t request,
               int64_t cycles) {
        if (log) {
            const int64_t entry[] = {now, kind, rank, bank, row, request};
            std::copy(std::begin(entry), std::end(entry), log + 6 * commands);
        }
        ++commands;
        ++kinds[kind];
        bus = now + cycles;
    }

    void plan_refresh(int64_t r) {
        Rank& rank = ranks[r];
        const int64_t shift = r * c.refi / c.ranks;
        rank.force = shift + (rank.issued + c.postponed + 1) * c.refi - closing;
        rank.early = shift + (rank.issued + 1 - c.pulled_in) * c.refi;
    }

    void refresh(int64_t now, int64_t r) {
        issue(now, kRefresh, r, -1, -1, -1, c.ref_cycles);
        ++ranks[r].issued;
        plan_refresh(r);
        for (int64_t b = r * per_rank; b < (r + 1) * per_rank; ++b)
            banks[b].act = std::max(banks[b].act, now + c.rfc);
    }

    void close(int64_t b, int64_t at, int64_t rp) {
        Bank& bank = banks[b];
        ranks[b / per_rank].open[bank.began].second = at;
        bank.open = -1;
        bank.act = std::max(bank.act, at + rp);
        bank.is_stale = true;
    }

    void close_all(int64_t now, int64_t r) {
        issue(now, kPreAll, r, -1, -1, -1, c.pre_cycles);
        ranks[r].pre = now + c.ppd;
        for (int64_t b = r * per_rank; b < (r + 1) * per_rank; ++b)
            if (banks[b].open >= 0) close(b, now, c.rp_all);
    }

    void close_one(int64_t now, int64_t b) {
        const int64_t r = b / per_rank;
        issue(now, kPre, r, b, banks[b].open, banks[b].chosen, c.pre_cycles);
        ranks[r].pre = now + c.ppd;
        close(b, now, c.rp);
    }

    void activate(int64_t now, int64_t b) {
        Bank& bank = banks[b];
        Rank& rank = ranks[b / per_rank];
        const int64_t row = t.row[bank.chosen];
        issue(now, kAct, b / per_rank, b, row, bank.chosen, c.act_cycles);
        bank.open = row;
        bank.act = now + c.rc;
        bank.cas = now + c.rcd;
        bank.pre = now + c.ras;
        bank.is_stale = bank.is_fresh = true;
        bank.began = rank.open.size();
        rank.open.emplace_back(now, now);
        rank.act = now + c.rrd_s;
        rank.group_act[b % per_rank / c.banks] = now + c.rrd_l;
        rank.four[rank.oldest] = now;
        rank.oldest = (rank.oldest + 1) % 4;
    }

    // Whether a bank precharges itself after the data of request i.
    bool closes_itself(const Bank& bank, int64_t i) const {
        if (c.page == kOpen || c.page == kClosed) return c.page == kClosed;
        bool is_wanted = false;
        for (int64_t k = bank.first; k >= 0; k = next[k]) {
            if (k == i) continue;
            if (t.row[k] == t.row[i]) return false;
            is_wanted = true;
        }
        return c.page == kClosedAdaptive || is_wanted;
    }

    void transfer(int64_t now, int64_t b) {
        Bank& bank = banks[b];
        const int64_t i = bank.chosen, r = b / per_rank, group = b % per_rank / c.banks;
        const bool is_write = t.is_write[i], is_last = closes_itself(bank, i);
        const Kind kind = is_write ? (is_last ? kWritePre : kWrite) : (is_last ? kReadPre : kRead);
        issue(now, kind, r, b, bank.open, i, c.cas_cycles);
        hits += !bank.is_fresh;
        bank.is_fresh = false;
        const int64_t done = now + (is_write ? c.cwl : c.cl) + c.burst;
        bank.pre = std::max(bank.pre, is_write ? done + c.wr : now + c.rtp);
        if (is_last) close(b, bank.pre, c.rp);
        for (int64_t k = 0; k < c.ranks; ++k) {
            Rank& rank = ranks[k];
            const int64_t apart = k == r ? c.ccd_s : c.burst + c.rtrs;
            const int64_t other = !is_write ? to_write
                                  : k == r  ? c.cwl + c.burst + c.wtr_s
                                            : c.cwl + c.burst + c.rtrs - c.cl;
            int64_t& same = is_write ? rank.write : rank.read;
            int64_t& turned = is_write ? rank.read : rank.write;
            same = std::max(same, now + apart);
            turned = std::max(turned, now + std::max<int64_t>(other, 1));
        }
        auto& same = is_write ? ranks[r].group_write : ranks[r].group_read;
        same[group] = std::max(same[group], now + c.ccd_l);
        if (is_write) {
            int64_t& turned = ranks[r].group_read[group];
            turned = std::max(turned, now + c.cwl + c.burst + c.wtr_l);
        }
        if (c.scheduler == kFrFcfsGrp && last_kind != int64_t(is_write)) forget_choices();
        last_kind = is_write;
        leave(i);
        if (!ranks[r].queued) ranks[r].quiet = now;
        was_served = true;
        end_data(i, done);
    }

    // -- responses ----------------------------------------------------------------------------------

    void end_data(int64_t i, int64_t at) {
        if (!c.in_order) return respond(i, at);
        data[i] = at;
        while (responded < int64_t(entered.size()) && data[entered[responded]] >= 0) {
            const int64_t k = entered[responded++];
            last_response = std::max(last_response, data[k]);
            respond(k, last_response);
        }
    }

    void respond(int64_t i, int64_t at) {
        const int64_t number = c.arbiter == kSimple ? 0 : t.source[i];
        if (c.arbiter != kReorder) return deliver(i, at, number);
        Lane& lane = lanes[number];
        answered[i] = at;
        while (lane.answered < lane.head && answered[lane.queue[lane.answered]] >= 0) {
            const int64_t k = lane.queue[lane.answered++];
            lane.last = std::max(lane.last, answered[k]);
            deliver(k, lane.last, number);
        }
    }

    void deliver(int64_t i, int64_t at, int64_t lane) {
        finish[i] = at;
        ++delivered;
        releases.emplace(at, lane);
    }

    const Setup c;
    const Trace t;
    int64_t *begin, *finish, *log;
    int64_t per_rank = 0, to_write = 0, closing = 0, high = 0, low = 0;
    std::vector<Bank> banks;
    std::vector<Rank> ranks;
    std::vector<Lane> lanes;
    std::vector<int64_t> next, previous, data, answered, order, occupied, entered;
    using Release = std::pair<int64_t, int64_t>;  // when, of which lane
    std::priority_queue<Release, std::vector<Release>, std::greater<>> releases;
    uint64_t busy = 0;  // banks with requests
    int64_t bus = 0, turn = 0, mode = 0, last_kind = 0, waiting[2] = {0, 0}, kinds[8] = {};
    int64_t delivered = 0, responded = 0, last_response = 0, hits = 0, commands = 0;
    bool is_held = false, was_served = false;
};

}  // namespace

extern "C" {

// begin and finish [n]: when each request came in and was answered. counts [8]: see Channel::count.
// log [commands, 6] or null: cycle, kind, rank, bank, row, request. done: whether all were served.
void dram(const int64_t* setup, int64_t n, const int64_t* at, const int64_t* after,
          const int64_t* is_write, const int64_t* bank, const int64_t* row, const int64_t* line,
          const int64_t* source, int64_t* begin, int64_t* finish, int64_t* counts, int64_t* log,
          int64_t* done) {
    Setup c;
    static_assert(sizeof(Setup) == 40 * sizeof(int64_t), "dram_twin.Setup has as many numbers");
    std::copy(setup, setup + 40, reinterpret_cast<int64_t*>(&c));
    Channel channel(c, Trace{n, at, after, is_write, bank, row, line, source}, begin, finish, log);
    *done = channel.run();
    channel.count(counts);
}

}
