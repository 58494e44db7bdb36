package daemon

import (
	"strings"

	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// signing makes what signs the requests of a delivery, unless a plugin does.
func (s secrets) signing(f *flow.Flow, in *flow.Sign) (*sign.Signing, error) {
	cfg := sign.Config{Header: named(in.Headers), Query: named(in.Params), Vars: f.Vars, Env: f.Env}
	var err error
	switch {
	case in.Signature != nil:
		cfg.Signature, err = s.signature(in.Signature)
	case in.JWT != nil:
		cfg.JWT, err = s.jwt(in.JWT)
	case in.OAuth2 != nil:
		cfg.OAuth2, err = s.oauth2(in.OAuth2)
	case in.APIKey != nil:
		cfg.APIKey, err = s.apiKey(in.APIKey)
	case in.Basic != nil:
		cfg.Basic, err = s.basic(in.Basic)
	}
	if err != nil {
		return nil, err
	}
	return sign.New(cfg)
}

func named(ps []flow.Param) []sign.Named {
	var out []sign.Named
	for _, p := range ps {
		out = append(out, sign.Named{Name: p.Name, Value: p.Value})
	}
	return out
}

func (s secrets) signature(in *flow.Signature) (*sign.Signature, error) {
	out := &sign.Signature{
		KeyPrefix: in.KeyPrefix, Derive: in.Derive, SignedHeaders: in.SignedHeaders, Canonical: in.Canonical, Over: in.Over,
		Header: in.Header, Query: in.Query, Value: in.Value,
	}
	var err error
	if out.Algorithm, err = sign.ParseAlgorithm(in.Algorithm); err != nil {
		return nil, record.Errorf(record.Config, "sign: %w", err)
	}
	if out.KeyEncoding, err = encoding(in.KeyEncoding); err != nil {
		return nil, err
	}
	if out.Encoding, err = encoding(in.Encoding); err != nil {
		return nil, err
	}
	key, err := s.key(in.Key.Name)
	if err != nil {
		return nil, err
	}
	out.Key = sign.NewSecret(in.Key.Name, []byte(strings.TrimPrefix(string(key), in.KeyTrim)))
	return out, nil
}

func encoding(name string) (sign.Encoding, error) {
	if name == "" {
		return sign.DefaultEncoding, nil
	}
	e, err := sign.ParseEncoding(name)
	if err != nil {
		return e, record.Errorf(record.Config, "sign: %w", err)
	}
	return e, nil
}

func (s secrets) jwt(in *flow.JWT) (*sign.JWT, error) {
	out := &sign.JWT{
		Algorithm: in.Algorithm, KeyID: in.KeyID, Type: in.Type, Claims: named(in.Claims), Lifetime: in.Lifetime, NoID: in.NoID,
		Header: in.Header, Prefix: in.Prefix,
	}
	var err error
	if out.KeyEncoding, err = encoding(in.KeyEncoding); err != nil {
		return nil, err
	}
	out.Key, err = s.keySecret(in.Key.Name)
	return out, err
}

func (s secrets) oauth2(in *flow.OAuth2) (*sign.OAuth2, error) {
	secret, err := s.secret(in.ClientSecret.Name)
	return &sign.OAuth2{
		TokenURL: in.TokenURL, ClientID: in.ClientID, ClientSecret: secret, Scopes: in.Scopes, Params: named(in.Params), InBody: in.InBody, Header: in.Header,
	}, err
}

func (s secrets) apiKey(in *flow.APIKey) (*sign.APIKey, error) {
	key, err := s.secret(in.Key.Name)
	return &sign.APIKey{Key: key, Header: in.Header, Query: in.Query, Prefix: in.Prefix}, err
}

func (s secrets) basic(in *flow.Basic) (*sign.Basic, error) {
	password, err := s.secret(in.Password.Name)
	return &sign.Basic{User: in.User, Password: password}, err
}

// signKeys reads the keys of a plugin that signs: a private key where the
// secret is PEM, else a shared one.
func (s secrets) signKeys(keys []flow.SignKey) (sign.Keys, error) {
	out := make(sign.Keys, 0, len(keys))
	for _, k := range keys {
		secret, err := s.keySecret(k.Secret.Name)
		if err != nil {
			return nil, err
		}
		var key *sign.Key
		if s.isPEM(k.Secret.Name) {
			key, err = sign.PrivateKey(secret)
		} else {
			var e sign.Encoding
			if e, err = encoding(k.Encoding); err == nil {
				key, err = sign.SharedKey(secret, e)
			}
		}
		if err != nil {
			return nil, err
		}
		out = append(out, key)
	}
	return out, nil
}

// isPEM reports whether a secret that could be read is PEM.
func (s secrets) isPEM(name string) bool {
	b, err := s.read(name)
	return err == nil && strings.Contains(string(b), "-----BEGIN ")
}
