package flow
import ("testing";"fmt";"strings";"time")
func TestZZ(t *testing.T){
 n:=100000
 for _,s:=range []string{strings.Repeat("- a\n",n/4), strings.Repeat("? a\n",n/4),strings.Repeat("a",n),strings.Repeat("a: \"x\\n\"\n",n/10),"a: \""+strings.Repeat("\n",n)+"\"", "a: |\n"+strings.Repeat(" x\n",n/3), strings.Repeat("#c\n",n/3), strings.Repeat("---\n",n/4), strings.Repeat("---\na: b\n",n/9), "a: "+strings.Repeat("x y\n  ",n/6), strings.Repeat("!a ",n/3), strings.Repeat("&a ",n/3), strings.Repeat("- ? ",10)+"a", strings.Repeat("a:\n",n/3), strings.Repeat("'",n), strings.Repeat("\"",n), strings.Repeat("{}",n/2), strings.Repeat(" ",n), strings.Repeat("a: b\n",n/5), strings.Repeat("a: &x ",n/7),strings.Repeat("x !a\n",n/5),
 func() string{ s:=""; b:=strings.Builder{}; for i:=0;i<440;i++{ b.WriteString(s+"a:\n"); s+=" "}; return b.String()}(),
 func() string{ b:=strings.Builder{}; for i:=0;i<n/8;i++{ fmt.Fprintf(&b,"k%d: 1\n",i)}; return b.String()}(),
 "a: ["+strings.Repeat("1,",n/2)+"]", "a: '"+strings.Repeat("''",n/2)+"'", "a: >\n"+strings.Repeat(" x\n\n",n/4),
 }{
  st:=time.Now()
  Parse("a",[]byte(s),Options{})
  if d:=time.Since(st); d>100*time.Millisecond { fmt.Printf("%.20q %v\n",s,d) }
 }
}
