package daemon

import (
	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
)

// receipt is what became of every record that a flow has read, by partition.
func (d *Daemon) receipt(f *state.Flow, partitions []state.Partition) (*api.Receipt, error) {
	parts, err := d.store.Receipt(f.ID)
	if err != nil {
		return nil, err
	}
	names := make(map[uint32]state.Partition, len(partitions))
	for _, p := range partitions {
		names[p.Part] = p
	}
	out := &api.Receipt{}
	for i := range parts {
		a := account(&parts[i])
		addAccount(&out.Account, &a)
		p := names[parts[i].Part]
		out.Partitions = append(out.Partitions, api.PartitionReceipt{Topic: p.Topic, Broker: p.Broker, Partition: p.Source, Account: a})
	}
	return out, nil
}

func account(r *state.PartReceipt) api.Account {
	a := api.Account{
		Read: r.Read, Split: r.Split, Delivered: r.Delivered, Known: r.Known, Filed: r.Filed, Kept: r.Kept, Flying: r.Flying, Unaccounted: r.Unaccounted(),
	}
	for _, n := range r.Dropped {
		if n.N == 0 {
			continue
		}
		if a.Dropped == nil {
			a.Dropped = map[string]int64{}
		}
		a.Dropped[n.Reason] += n.N
	}
	return a
}

// unaccounted is how many records are missing in a receipt or too many, by
// partition, so that the one does not make up for the other.
func unaccounted(r *api.Receipt) (n int64) {
	for i := range r.Partitions {
		n += abs(r.Partitions[i].Unaccounted)
	}
	return n
}

func abs(n int64) int64 { return max(n, -n) }

func addAccount(sum, a *api.Account) {
	sum.Read += a.Read
	sum.Split += a.Split
	sum.Delivered += a.Delivered
	sum.Known += a.Known
	sum.Filed += a.Filed
	sum.Kept += a.Kept
	sum.Flying += a.Flying
	sum.Unaccounted += a.Unaccounted
	for reason, n := range a.Dropped {
		if sum.Dropped == nil {
			sum.Dropped = map[string]int64{}
		}
		sum.Dropped[reason] += n
	}
}
