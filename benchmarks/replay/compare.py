import argparse, multiprocessing, time, sys, warnings, pickle, os
import numpy as np, optuna
from benchmarks.replay.curves import Curves, ratio, _seconds_to
from benchmarks.replay.methods import METHODS
from benchmarks.replay.search import Replay
from benchmarks.replay.tables import TABLES
from benchmarks.replay.world import World

MOST=200
def one(task):
    warnings.filterwarnings("ignore"); optuna.logging.set_verbosity(optuna.logging.ERROR)
    name, method, seed, horizon = task
    w = world(name)
    g = np.random.default_rng(seed)
    rp = Replay(w, int(g.integers(w.num_seeds)), int(g.integers(len(w.values))))
    out = []
    for f in METHODS[method](rp, seed):
        out.append(f)
        if f.seconds > horizon or f.trials>=MOST: break
    return out, w.regret(rp.first, rp.seen)
import functools
@functools.cache
def world(name): return World.of(TABLES[name])
def main():
    a = sys.argv[1:]; name = a[0]; R = int(a[1]); only = a[2:]
    w = world(name); full = w.seconds.sum(1).mean(); grid = np.linspace(0, 30*full, 1201)
    print(name, w.accuracy.shape, f'full {full:.1f}s', 'top', np.sort(w.best.mean(1))[::-1][:6].round(4))
    ref=None
    for m in METHODS:
        if m != 'plain Optuna' and only and not any(o in m for o in only): continue
        b=time.time()
        with multiprocessing.Pool(1) as p: res = p.map(one, [(name, m, s, 24*full) for s in range(R)], chunksize=4)
        c = Curves.of([r[0] for r in res], grid, [r[1] for r in res])
        if ref is None: ref=c; r20=ref.reference.mean(); print('R20', 100*r20, 'T', _seconds_to(r20, ref, np.arange(len(ref.regrets)))/full)
        r = ratio(c, ref)
        print(f"{m:32s} ratio {r.value:5.2f} [{r.low:.2f} {r.high:.2f}] regret % at 3,5,10,20,30: " + ' '.join(f"{100*c.mean[np.searchsorted(grid,k*full)-1]:.2f}" for k in (3,5,10,20,30)) + f" se {100*c.error[400]:.2f} {time.time()-b:.0f}s", flush=True)
if __name__ == "__main__":
    main()
