// A fleet of replicas under a trace of requests, from event to event. `fleet.py` says what is modelled, and calls this.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <deque>
#include <limits>
#include <queue>
#include <vector>

namespace {

constexpr double NEVER = std::numeric_limits<double>::infinity();

struct Settings {
    double prefill_tokens_per_s, token_s, token_s_per_request, room_s, patience_s, target_s, step_s;
    std::int64_t slots;
    double cold_start_s, counted_from_s, counted_until_s;
};

struct Counts {
    double arrivals, completed, cancelled_waiting, cancelled_prefill, cancelled_decode, shed;
    double slot_s, tokens_prefilled, tokens_decoded, waited_over_target;
    double queued, running, ready, starting;
};

struct Replica {
    double born, busy_until, seen_until;
    std::int64_t running = 0;
    bool draining = false;
};

enum class Kind { ready, end, leave, told };
enum class Fate { completed, cancelled_prefill, cancelled_decode };

struct Event {
    double at;
    std::int64_t number;
    Kind kind;
    std::size_t replica, request;
    Fate fate;
    double tokens, unspent_s;
};

struct Later {
    bool operator()(const Event& a, const Event& b) const {
        return a.at != b.at ? a.at > b.at : a.number > b.number;
    }
};

struct Fleet {
    Settings set;
    std::size_t count;
    const double *at, *leaves;
    const std::int32_t *prompt, *output;
    std::vector<double> wait;
    std::vector<Replica> replicas;
    std::vector<std::size_t> live, starting;
    std::priority_queue<Event, std::vector<Event>, Later> events;
    std::deque<std::size_t> queue;
    std::vector<bool> waits;
    Counts counts{};
    double now = 0, room_at = NEVER, gpu_s = 0;
    std::size_t next = 0;
    std::int64_t number = 0;

    void push(Event event) {
        event.number = number++;
        events.push(event);
    }

    void bill(const Replica& replica, double until) {
        gpu_s += std::max(0.0, std::min(until, set.counted_until_s) - std::max(replica.born, set.counted_from_s));
    }

    void spend(double until) {
        counts.slot_s += counts.running * (until - now);
        now = until;
    }

    // The replica whose prompts are done first, of those with a slot and room; of equal ones that which runs fewest.
    bool choose(std::size_t& chosen) {
        bool found = false;
        double best = 0;
        room_at = NEVER;
        for (std::size_t each : live) {
            const Replica& replica = replicas[each];
            if (replica.running >= set.slots) continue;
            const double backlog = std::max(replica.seen_until - now, 0.0);
            if (backlog >= set.room_s) {
                room_at = std::min(room_at, replica.seen_until - set.room_s);
                continue;
            }
            if (!found || backlog < best || (backlog == best && replica.running < replicas[chosen].running)) {
                found = true;
                best = backlog;
                chosen = each;
            }
        }
        return found;
    }

    void place(std::size_t request, std::size_t where) {
        Replica& replica = replicas[where];
        const double prefill_s = prompt[request] / set.prefill_tokens_per_s;
        const double begin = std::max(replica.busy_until, now), first = begin + prefill_s, gone = leaves[request];
        const double work_s = prefill_s + output[request] * set.token_s_per_request;
        ++replica.running;
        ++counts.running;
        if (now - at[request] > set.target_s) {
            ++counts.waited_over_target;
        } else {
            // What begins is told with the step in which it does; of who leaves before that, when it would have been.
            const double told = begin + std::min(prefill_s, set.step_s);
            const bool late = (gone < told ? gone - set.step_s / 2 : begin) - at[request] > set.target_s;
            if (late) push({std::max(std::min(gone, told), now), 0, Kind::told, where, request, Fate::completed, 0, 0});
        }
        const double token_s = set.token_s + set.token_s_per_request * static_cast<double>(replica.running);
        Event event{first + output[request] * token_s, 0, Kind::end, where, request, Fate::completed, 0, 0};
        event.tokens = output[request];
        double spent_s = work_s;
        wait[request] = begin - at[request];
        if (gone < event.at) {
            event.at = std::max(gone, now);
            event.tokens = 0;
            if (gone <= begin) {
                wait[request] = event.at - at[request];
                spent_s = 0;
            } else if (gone < first) {
                spent_s = gone - begin;
            } else {
                event.tokens = std::floor((gone - first) / token_s);
                spent_s = prefill_s + event.tokens * set.token_s_per_request;
            }
            event.fate = gone < first ? Fate::cancelled_prefill : Fate::cancelled_decode;
            if (gone < first) event.unspent_s = work_s - spent_s;
        }
        if (spent_s > 0) replica.busy_until = begin + spent_s;
        replica.seen_until = std::max(replica.seen_until, now) + work_s;
        push(event);
    }

    void dispatch() {
        room_at = NEVER;
        while (!queue.empty()) {
            const std::size_t request = queue.front();
            std::size_t where = 0;
            if (waits[request]) {
                if (!choose(where)) return;
                waits[request] = false;
                --counts.queued;
                place(request, where);
            }
            queue.pop_front();
        }
    }

    void arrive() {
        const std::size_t request = next++;
        spend(at[request]);
        ++counts.arrivals;
        std::size_t where = 0;
        if (counts.queued == 0 && choose(where)) {
            room_at = NEVER;
            place(request, where);
            return;
        }
        queue.push_back(request);
        waits[request] = true;
        ++counts.queued;
        const double until = std::min(leaves[request], at[request] + set.patience_s);
        push({until, 0, Kind::leave, 0, request, Fate::completed, 0, 0});
    }

    void leave(std::size_t request) {
        if (!waits[request]) return;
        waits[request] = false;
        --counts.queued;
        counts.waited_over_target += now - at[request] > set.target_s;
        const bool shed = leaves[request] > now;
        ++(shed ? counts.shed : counts.cancelled_waiting);
        wait[request] = shed ? NEVER : now - at[request];
    }

    void end(const Event& event) {
        Replica& replica = replicas[event.replica];
        --replica.running;
        --counts.running;
        replica.seen_until = std::max(replica.seen_until - event.unspent_s, replica.busy_until);
        counts.tokens_decoded += event.tokens;
        if (event.fate != Fate::cancelled_prefill) counts.tokens_prefilled += prompt[event.request];
        ++(event.fate == Fate::completed           ? counts.completed
           : event.fate == Fate::cancelled_prefill ? counts.cancelled_prefill
                                                   : counts.cancelled_decode);
        if (replica.draining && replica.running == 0) bill(replica, now);
        dispatch();
    }

    void ready(std::size_t which) {
        if (replicas[which].draining) return;
        starting.erase(std::find(starting.begin(), starting.end(), which));
        replicas[which].busy_until = replicas[which].seen_until = now;
        live.push_back(which);
        dispatch();
    }

    void advance(double until) {
        for (;;) {
            const double arrival = next < count ? at[next] : NEVER;
            const double event_at = events.empty() ? NEVER : events.top().at;
            const double first = std::min({arrival, event_at, room_at});
            if (first >= until) break;
            if (arrival == first) {
                arrive();
            } else if (event_at == first) {
                const Event event = events.top();
                events.pop();
                spend(event.at);
                if (event.kind == Kind::ready) ready(event.replica);
                else if (event.kind == Kind::end) end(event);
                else if (event.kind == Kind::told) ++counts.waited_over_target;
                else leave(event.request);
            } else {
                spend(std::max(room_at + 1e-9, now));
                dispatch();
            }
        }
        spend(until);
        counts.ready = static_cast<double>(live.size());
        counts.starting = static_cast<double>(starting.size());
    }

    // `at_once`: what stands already when the trace begins.
    void scale(std::size_t wish, bool at_once) {
        while (live.size() + starting.size() < wish) {
            replicas.push_back({now, now, now});
            const std::size_t which = replicas.size() - 1;
            if (at_once) {
                live.push_back(which);
            } else {
                starting.push_back(which);
                push({now + set.cold_start_s, 0, Kind::ready, which, 0, Fate::completed, 0, 0});
            }
        }
        while (live.size() + starting.size() > wish) {
            std::size_t which;
            if (!starting.empty()) {
                which = starting.back();
                starting.pop_back();
            } else {
                const auto least = std::min_element(live.begin(), live.end(), [this](std::size_t a, std::size_t b) {
                    return replicas[a].running < replicas[b].running;
                });
                which = *least;
                live.erase(least);
            }
            replicas[which].draining = true;
            if (replicas[which].running == 0) bill(replicas[which], now);
        }
        counts.ready = static_cast<double>(live.size());
        counts.starting = static_cast<double>(starting.size());
    }

    // GPU-seconds of all replicas; those that have not ended are billed to the end.
    double finish() {
        double total = gpu_s;
        gpu_s = 0;
        for (const Replica& replica : replicas)
            if (!replica.draining || replica.running > 0) bill(replica, set.counted_until_s);
        return total + gpu_s;
    }
};

}  // namespace

extern "C" {

Fleet* fleet_new(const Settings* settings, std::size_t count, const double* at, const double* leaves,
                 const std::int32_t* prompt, const std::int32_t* output) {
    auto* fleet = new Fleet;
    fleet->set = *settings;
    fleet->count = count;
    fleet->at = at;
    fleet->leaves = leaves;
    fleet->prompt = prompt;
    fleet->output = output;
    fleet->wait.assign(count, NEVER);
    fleet->waits.assign(count, false);
    return fleet;
}

void fleet_scale(Fleet* fleet, std::size_t wish, bool at_once) { fleet->scale(wish, at_once); }

void fleet_advance(Fleet* fleet, double until, Counts* counts) {
    fleet->advance(until);
    *counts = fleet->counts;
}

double fleet_finish(Fleet* fleet, double* wait) {
    std::copy(fleet->wait.begin(), fleet->wait.end(), wait);
    return fleet->finish();
}

void fleet_delete(Fleet* fleet) { delete fleet; }
}
